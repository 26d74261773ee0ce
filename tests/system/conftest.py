"""One running stack for all system tests: each test delivers as a supplier of its own."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from fusebus.console.photos import photos_in
from fusebus.console.settings import ConsoleSettings, console_settings
from fusebus.stack.delivery import Delivered, Moment, deliver
from fusebus.stack.stack import Stack, StackOptions
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

LOOK_SECONDS = 0.1  # tests that wait for a moment must not sleep through it
SIZE = (640, 480)  # pixels: the flow is under test, not the picture


@dataclass
class System:
    """The stack and what tests do with it."""

    stack: Stack
    settings: ConsoleSettings
    mail: Path

    async def deliver(
        self, supplier: str, folder: Path, on_look: Callable[[Moment], None] = lambda _: None, close: bool = False
    ) -> Delivered:
        """Send a folder's photos and wait until everything is over."""
        return await deliver(
            self.stack,
            self.settings,
            supplier,
            photos_in(folder),
            close_when_entered=close,
            on_upload=lambda _: None,
            on_look=on_look,
            look_seconds=LOOK_SECONDS,
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Short locks and a short quiet time: what a kill leaves behind comes back within seconds."""
    folder = tmp_path_factory.mktemp("stack")
    options = StackOptions(folder=folder, lock_seconds=5.0, run_quiet_seconds=4.0, boot_seconds=0.5)
    async with Stack(options) as stack:
        yield System(stack, console_settings(stack.settings_file), stack.mail_folder)


@pytest.fixture(scope="session")
def photographs() -> Callable[[int, int], list[bytes]]:
    """JPEGs of `count` different boards, the first with seed `first`; drawn once."""
    drawn: dict[int, bytes] = {}

    def draw(first: int, count: int) -> list[bytes]:
        for seed in range(first, first + count):
            if seed not in drawn:
                drawn[seed] = encode_jpeg(draw_board(seed, SIZE).image)
        return [drawn[seed] for seed in range(first, first + count)]

    return draw


@pytest.fixture
def folder_with(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """A folder that holds these files."""

    def make(files: dict[str, bytes]) -> Path:
        for name, data in files.items():
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "photos"

    return make
