"""Owns how a drawn board becomes a photo: the camera's place, dirt, light, glare, exposure, blur and noise.

Everything is decided in shares of the photo and laid over it from a coarse grid: a photo is the same at every size.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.board_drawing import Canvas
from fusebus.vision.board_painter import Stage

_UNDECIDED = (
    0.1,
    0.55,
)  # visible shares of a neutral between which it would be a matter of taste whether it is in the photo
_LOOKS = 24  # tries to find a view without a neutral in between; each from a little farther away
_GRID = (144, 192)  # rows and columns of the coarse grid that light and dirt are made on

Field = NDArray[np.float32]


def look(stage: Stage, random: np.random.Generator) -> tuple[NDArray[np.float64], list[float]]:
    """A view of the stage from a little aside, in which every neutral is plainly in the photo or plainly not.

    Returns the points (4, 2) in scene units that the photo's corners see, and the visible share of every neutral.
    """
    unhidden = stage.unhidden()
    for attempt in range(_LOOKS):
        seen = _view(stage, random, attempt * 0.006)
        shares = visible_shares(stage, seen, unhidden)
        if not any(_UNDECIDED[0] < share < _UNDECIDED[1] for share in shares):
            break
    return seen, shares


def _view(stage: Stage, random: np.random.Generator, farther: float) -> NDArray[np.float64]:
    angle = np.deg2rad(np.clip(random.normal(0, 6), -15, 15))
    zoom = random.uniform(0.9, 1.12) + farther
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    width, height = stage.width, stage.height
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2 * zoom
    aside, over = random.normal(0, 0.05, 2).clip(-0.12, 0.12)  # the camera stands to a side: the far side looks smaller
    sides = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners *= 1 + sides[:, [0]] * aside + sides[:, [1]] * over
    centre = np.array([stage.left + width / 2, stage.top + height / 2]) + random.uniform(-0.03, 0.03, 2) * width
    return np.asarray(corners @ turn.T + centre + random.uniform(-0.02, 0.02, (4, 2)) * width)


def visible_shares(stage: Stage, view: NDArray[np.float64], unhidden: list[float]) -> list[float]:
    """Which share of each neutral is in the photo and not hidden by what hangs in front of it."""
    frame = view.astype(np.float32)
    shares = []
    for outline, clear in zip(stage.outlines, unhidden, strict=True):
        whole = outline.astype(np.float32)
        common, _ = cv2.intersectConvexConvex(frame, whole)
        shares.append(float(common) / cv2.contourArea(whole) * clear)
    return shares


def photograph(
    canvas: Canvas, view: NDArray[np.float64], random: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photo (height, width, 3) of that view, and beside it the canvas's owners (height, width)."""
    width, height = size
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform((view * canvas.scale).astype(np.float32), frame)
    image = cv2.warpPerspective(canvas.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    owner = cv2.warpPerspective(canvas.owner, matrix, size, flags=cv2.INTER_NEAREST)
    dim, bright = _dirt(random) * _lamp(random), _glare(random)
    exposure = np.exp(random.normal(-0.03, 0.2)) * np.exp(random.normal(0, 0.045, 3))
    dim = dim * exposure.astype(np.float32) * (1 - bright[:, :, None])
    image = _blurred(np.asarray(image, np.uint8), random)
    grain = float(random.uniform(1, 8))
    cv2.setRNGSeed(int(random.integers(1 << 30)))
    noise = np.zeros((height, width), np.float32)
    cv2.randn(noise, 0.0, grain)
    noise += cv2.resize(bright * np.float32(250), size, interpolation=cv2.INTER_LINEAR)
    lit = cv2.resize(dim, size, interpolation=cv2.INTER_LINEAR)
    lit *= image
    lit += noise[:, :, None]
    return np.asarray(np.clip(lit, 0, 255, out=lit).astype(np.uint8)), np.asarray(owner, np.uint8)


def _axes() -> tuple[Field, Field]:
    rows, columns = _GRID
    return np.linspace(-1, 1, columns, dtype=np.float32)[None, :], np.linspace(-1, 1, rows, dtype=np.float32)[:, None]


def _clouds(random: np.random.Generator, rows: int, columns: int) -> Field:
    """Smooth noise of mean 0 and deviation of about 1 on the coarse grid, each octave half as strong as the last."""
    clouds = np.zeros(_GRID, np.float32)
    for octave in range(4):
        grid = random.normal(0, 1.3 * 0.6**octave, (rows << octave, columns << octave)).astype(np.float32)
        clouds += cv2.resize(grid, _GRID[::-1], interpolation=cv2.INTER_CUBIC)
    return clouds


def _lamp(random: np.random.Generator) -> Field:
    """Brightness factors (rows, columns, 1): falling off to a side, a torch, shadows of edges and of people."""
    across, down = _axes()
    side = random.uniform(0, 2 * np.pi)
    lamp = 1 + random.uniform(0, 0.32) * (np.cos(side) * across + np.sin(side) * down)
    lamp = lamp * (1 - random.uniform(0, 0.26) * (across**2 + down**2))
    if random.random() < 0.35:  # a torch
        x, y, spread = random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), random.uniform(0.25, 0.7)
        lamp = lamp + random.uniform(0.08, 0.3) * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * spread**2))
    if random.random() < 0.4:  # the edge of a shadow
        tilt, where = random.uniform(-1, 1), random.uniform(-0.6, 0.6)
        edge = 1 / (1 + np.exp((across + tilt * down - where) * random.uniform(3, 20)))
        lamp = lamp * (1 - random.uniform(0.15, 0.5) * edge)
    if random.random() < 0.3:  # of the photographer: head and shoulder
        lamp = lamp * (1 - random.uniform(0.15, 0.5) * _person(random))
    return np.asarray(lamp, np.float32)[:, :, None]


def _person(random: np.random.Generator) -> Field:
    rows, columns = _GRID
    shape = np.zeros(_GRID, np.uint8)
    x, y, head = random.uniform(0.1, 0.9) * columns, random.uniform(0.3, 0.8) * rows, random.uniform(0.1, 0.2) * rows
    cv2.ellipse(shape, (round(x), round(y)), (round(head * 0.8), round(head)), 0, 0, 360, 255, -1)
    cv2.ellipse(shape, (round(x), round(y + 2.6 * head)), (round(2.2 * head), round(1.7 * head)), 0, 0, 360, 255, -1)
    cv2.rectangle(shape, (round(x - 2.2 * head), round(y + 2.6 * head)), (round(x + 2.2 * head), rows), 255, -1)
    return np.asarray(cv2.GaussianBlur(shape, (0, 0), random.uniform(1.5, 5)) / 255, np.float32)


def _dirt(random: np.random.Generator) -> Field:
    """Colour factors (rows, columns, 3): brown smears, drips that ran down, a film of dust."""
    layer = np.ones((*_GRID, 3), np.float32)
    for chance, shape in ((0.45, (4, 5)), (0.4, (9, 12)), (0.3, (2, 40))):
        if random.random() > chance:
            continue
        cover = np.clip(_clouds(random, *shape) - random.uniform(0.4, 1.2), 0, 1) * random.uniform(0.15, 0.5)
        tint = np.array([0.55, 0.7, 0.9], np.float32) if random.random() < 0.6 else np.full(3, 0.8, np.float32)
        layer *= 1 - cover[:, :, None] * tint
    return layer


def _glare(random: np.random.Generator) -> Field:
    """How much of each point is drowned in a light's reflection (rows, columns), 0 to 0.9."""
    across, down = _axes()
    glare = np.zeros(_GRID, np.float32)
    for _ in range(int(random.choice(4, p=(0.5, 0.28, 0.15, 0.07)))):
        x, y = random.uniform(-1, 1, 2)
        long, thin, angle = random.uniform(0.03, 0.16), random.uniform(0.015, 0.05), random.uniform(0, np.pi)
        u = (across - x) * np.cos(angle) + (down - y) * np.sin(angle)
        v = (down - y) * np.cos(angle) - (across - x) * np.sin(angle)
        spot = np.exp(-((u / long) ** 2 + (v / thin) ** 2)) + 0.25 * np.exp(-(u**2 + v**2) / (2.5 * long) ** 2)
        glare = glare + random.uniform(0.3, 1.0) * spot
    if random.random() < 0.12:  # against the light: a veil over everything
        glare = glare + random.uniform(0.05, 0.2)
    return np.asarray(np.minimum(glare, 0.9), np.float32)


def _blurred(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus in a third of the photos, shaken in a sixth."""
    width = image.shape[1]
    focus, shake = random.random(), random.random()
    softness = random.uniform(0.0004, 0.0032) * width if focus < 0.35 else 0.0
    length, angle = random.uniform(0.002, 0.008) * width, random.uniform(0, np.pi)
    if softness > 0.25:
        factor = max(
            1, int(softness / 1.6)
        )  # a wide blur of a large photo is that of a smaller one, and takes less time
        small = (
            cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA) if factor > 1 else image
        )
        small = cv2.GaussianBlur(small, (0, 0), softness / factor)
        image = np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    if shake < 0.16 and length > 1.5:
        image = _shaken(image, length, angle)
    return image


def _shaken(image: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    factor = max(1, int(length / 8))
    size = image.shape[1::-1]
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA) if factor > 1 else image
    reach = round(length / factor)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-0.5, 0.5, 8 * reach + 1):
        x, y = reach + step * reach * np.cos(angle), reach + step * reach * np.sin(angle)
        kernel[round(y), round(x)] += 1
    small = cv2.filter2D(small, -1, kernel / kernel.sum())
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC) if factor > 1 else small, np.uint8)
