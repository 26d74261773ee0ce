"""Owns how a drawn board becomes a photo: the camera's place, the light, exposure, blur and noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.board_drawing import Canvas


def photograph(
    canvas: Canvas, random: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Look at the scene from a little aside: rotation, distance and perspective."""
    width, height = size
    angle = np.deg2rad(np.clip(random.normal(0, 6), -14, 14))
    zoom = random.uniform(0.93, 1.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2 * zoom
    centre = np.array(canvas.owner.shape[::-1]) / 2 + random.uniform(-0.015, 0.015, 2) * width
    seen = corners @ turn.T + centre + random.uniform(-0.035, 0.035, (4, 2)) * width
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(seen.astype(np.float32), frame)
    image = cv2.warpPerspective(canvas.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    owner = cv2.warpPerspective(canvas.owner, matrix, size, flags=cv2.INTER_NEAREST)
    return np.asarray(image, np.uint8), np.asarray(owner, np.uint8)


def light(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Put the photo in its light: falling off to a side, shadows, torch, exposure, white balance, blur and noise."""
    height, width = image.shape[:2]
    across = np.linspace(-1, 1, 64, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, 48, dtype=np.float32)[:, None]
    side = random.uniform(0, 2 * np.pi)
    lamp = 1 + random.uniform(0, 0.28) * (np.cos(side) * across + np.sin(side) * down)
    lamp = lamp * (1 - random.uniform(0, 0.22) * (across**2 + down**2))
    if random.random() < 0.35:  # a torch
        x, y, spread = random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), random.uniform(0.25, 0.7)
        lamp = lamp + random.uniform(0.08, 0.25) * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * spread**2))
    if random.random() < 0.4:  # the edge of a shadow
        tilt, where = random.uniform(-1, 1), random.uniform(-0.6, 0.6)
        edge = 1 / (1 + np.exp((across + tilt * down - where) * random.uniform(3, 14)))
        lamp = lamp * (1 - random.uniform(0.15, 0.45) * edge)
    exposure = np.exp(random.normal(-0.02, 0.15))
    balance = np.exp(random.normal(0, 0.035, 3)).astype(np.float32)
    blur = random.uniform(0, 0.0009) * width if random.random() < 0.5 else 0.0
    grain = random.uniform(1, 6)
    field = cv2.resize(np.asarray(lamp * exposure, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if blur > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    noise = np.zeros((height, width), np.float32)
    cv2.setRNGSeed(int(random.integers(1 << 30)))
    cv2.randn(noise, 0.0, float(grain))
    lit = image * (field[:, :, None] * balance) + noise[:, :, None]
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
