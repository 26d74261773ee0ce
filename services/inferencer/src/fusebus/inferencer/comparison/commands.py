"""`fusebus model compare A B`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fusebus.blobs import Blobs, BlobSettings, StorageError
from fusebus.host import environment_for_people, load_settings
from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.onnx import open_backend
from fusebus.inferencer.backends.providers import CPU, CUDA, TENSORRT
from fusebus.inferencer.comparison.comparing import Comparison, Version, compare
from fusebus.inferencer.comparison.figures import Figures, figures, largest
from fusebus.inferencer.comparison.photos import NoPhotos, Photo, photos_in, photos_of
from fusebus.inferencer.comparison.pictures import side_by_side
from fusebus.inferencer.comparison.sheet import Picture, caption, render, rows, verdict
from fusebus.inferencer.guard import ModelRefusal, try_model
from fusebus.inferencer.trial import TrialOrder
from fusebus.ledger import Ledger, LedgerError, LedgerSettings
from fusebus.models.live import RegistryError
from fusebus.models.manifest import ModelError, load_manifest
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings

FAILURES = (ModelRefusal, ModelError, RegistryError, BackendError, StorageError, LedgerError, NoPhotos, OSError)


class CompareSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where runs, photos and models lie: the sections of the services."""

    blobs: BlobSettings
    ledger: LedgerSettings
    models: RegistrySettings


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for."""

    models: tuple[str, str]
    run: str | None
    photos: Path | None
    stored: bool
    out: Path
    pictures: int
    limit: int | None
    provider: str
    settings: CompareSettings
    quiet: bool


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--run", help="Compare on the photos of this run.")
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Compare on the photos below here."
)
@click.option("--stored", is_flag=True, help="With --run: take results that are stored (a canary's); run the rest.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the page; default: compare.")
@click.option("--pictures", default=12, show_default=True, type=click.IntRange(0, 200), help="Disagreements to draw.")
@click.option("--limit", type=click.IntRange(1), help="Compare no more photos than this.")
@click.option(
    "--provider",
    default=CPU,
    show_default=True,
    type=click.Choice([CPU, CUDA, TENSORRT]),
    help="Where both run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with addresses and credentials; default: FUSEBUS_SETTINGS, or .fusebus/settings.toml here.",
)
def compare_models(
    first: str,
    second: str,
    run: str | None,
    photos: Path | None,
    stored: bool,
    out: Path | None,
    pictures: int,
    limit: int | None,
    provider: str,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Compare two models, each a NAME@VERSION of the registry or a folder, on the same photos.

    Shows counts, scores, agreement and speed (one photo a call, both in turn), and writes OUT/index.html with pictures
    of the largest disagreements and OUT/compare.json.

    \b
    Example: fusebus model compare fuse-neutral@1 fuse-neutral@2 --run 20261121T103000Z-acme-0f0f0f0f --stored
    Exit codes: 0 compared, 1 not possible (the reason is named), 2 usage.
    """
    if (run is None) == (photos is None):
        raise click.UsageError("name either --run or --photos")
    if stored and run is None:
        raise click.UsageError("--stored goes with --run: a folder has no stored results")
    wish = Wish(
        models=(first, second),
        run=run,
        photos=photos,
        stored=stored,
        out=out or Path("compare"),
        pictures=pictures,
        limit=limit,
        provider=provider,
        settings=load_settings(CompareSettings, "compare", environment_for_people(settings_file)),
        quiet=as_json,
    )
    try:
        result = asyncio.run(_compare(wish))
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        _say(result, wish.out / "index.html")


async def _compare(wish: Wish) -> Figures:
    async with _Opened(wish.settings) as opened:
        photos = await opened.photos(wish)
        first, second = [await opened.version(name, wish) for name in wish.models]
        with Progress(console=Console(stderr=True), disable=wish.quiet) as progress:
            task = progress.add_task("comparing", total=len(photos))
            done = await compare(
                (first, second), photos, use_stored=wish.stored, on_photo=lambda: progress.advance(task)
            )
        refs = first.manifest.ref, second.manifest.ref
        result = figures(refs, done.photos, wish.pictures, done.skipped)
        await _write(wish, result, done, photos)
        return result


class _Opened:
    """Storage, ledger and registry, each opened when something needs it: two folders and --photos need none."""

    def __init__(self, settings: CompareSettings) -> None:
        self._settings = settings
        self._exits = contextlib.AsyncExitStack()
        self._blobs: Blobs | None = None

    async def __aenter__(self) -> _Opened:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def photos(self, wish: Wish) -> Sequence[Photo]:
        if wish.photos is not None:
            return photos_in(wish.photos)[: wish.limit]
        ledger = await self._exits.enter_async_context(Ledger(self._settings.ledger))
        return (await photos_of(wish.run or "", ledger, await self._storage()))[: wish.limit]

    async def version(self, name: str, wish: Wish) -> Version:
        """A folder where there is one of that name, else from the registry; tried in a child first."""
        models = self._settings.models
        folder = Path(name)
        if not await asyncio.to_thread(folder.is_dir):
            folder = await Registry(await self._storage(), models).pull(name, models.cache)
        order = TrialOrder(
            folder=str(folder),
            provider=wish.provider,
            intra_op_threads=1,
            max_batch=1,
            memory_bytes=models.load_memory_bytes,
        )
        await try_model(order, models.load_timeout_seconds)
        manifest = load_manifest(folder)
        return Version(manifest=manifest, open_backend=lambda: open_backend(folder, manifest, wish.provider, 1, 1))

    async def _storage(self) -> Blobs:
        if self._blobs is None:
            self._blobs = await self._exits.enter_async_context(Blobs(self._settings.blobs))
        return self._blobs


async def _write(wish: Wish, result: Figures, done: Comparison, photos: Sequence[Photo]) -> None:
    """The page, its pictures and the figures, into a folder that may hold those of an earlier comparison."""
    folder = wish.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("disagreement-*.jpg"):
        old.unlink()
    by_name, shown = {photo.name: photo for photo in photos}, []
    for number, photo in enumerate(largest(done.photos, wish.pictures), 1):
        file = folder / f"disagreement-{number:03}.jpg"
        data = await by_name[photo.name].read()
        file.write_bytes(await asyncio.to_thread(side_by_side, data, photo.first, photo.second))
        shown.append(Picture(f"pictures/{file.name}", photo.name, caption(photo)))
    (wish.out / "index.html").write_bytes(render(result, shown))
    (wish.out / "compare.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def _say(result: Figures, page: Path) -> None:
    table = Table("", result.first.ref, result.second.ref, box=None)
    for row in rows(result):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(verdict(result), highlight=False)
    if result.skipped:
        console.print(f"{len(result.skipped)} photos could not be compared; the page says why", highlight=False)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)
