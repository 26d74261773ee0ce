"""`fusebus convert`: everything of a folder or container to lossless files in another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fusebus.blobs import BlobSettings, StorageError
from fusebus.contracts import display
from fusebus.convert.bulk import Options, Outcome, Report, convert_all
from fusebus.convert.containers import Container, Storage
from fusebus.convert.conversion import Format, Target
from fusebus.convert.memory import LEAST_MEGABYTES, MEMORY_PER_WORKER_BYTES, keep_freed_memory
from fusebus.convert.names import printable
from fusebus.convert.places import Folder, LeftAlone
from fusebus.convert.record import Entry, RecordBusy
from fusebus.host import environment_for_people, load_settings

EXIT_FAILED = 1
EXIT_SOME_FAILED = 4
EXIT_INTERRUPTED = 130
CONTAINER = "container:"
MEGABYTE = 1 << 20
FAILURES_SHOWN = 20
"""On a terminal; the record and --json have all."""


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where containers are."""

    blobs: BlobSettings


@click.command("convert")
@click.argument("source")
@click.argument("destination")
@click.option("--format", "name", type=click.Choice([one.value for one in Format]), default="png", show_default=True)
@click.option("--small", is_flag=True, help="Fewer bytes, at about a quarter of the speed.")
@click.option("--workers", type=click.IntRange(1, 256), help="Pictures converted at a time; default: one a core.")
@click.option(
    "--memory",
    "megabytes",
    type=click.IntRange(LEAST_MEGABYTES),
    help="MB for pictures in hand, all together; one that needs more is converted alone. "
    f"Default: {MEMORY_PER_WORKER_BYTES // MEGABYTE} for each worker.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Overwrite files at DESTINATION that this command did not write for the same picture.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file that says where containers are; default: FUSEBUS_SETTINGS, or .fusebus/settings.toml here.",
)
def convert_command(
    source: str,
    destination: str,
    name: str,
    small: bool,
    workers: int | None,
    megabytes: int | None,
    replace: bool,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Convert every picture of SOURCE to a lossless PNG or WebP at DESTINATION.

    Both are folders, or storage containers as container:NAME or container:NAME/PREFIX. JPEG, PNG, WebP, TIFF, GIF
    and BMP are read: files with one of their suffixes or with none (README and Makefile fail as not_an_image). Other
    suffixes, hidden files and folders, links to folders, dangling links and FIFOs are left alone, and counted.
    Originals stay as they are. Pictures come out upright, with the same pixels and ICC profile and no other
    metadata; CMYK becomes sRGB. Called again, it converts what is new or has changed: the record beside DESTINATION
    (DESTINATION.convert.jsonl) says what was done.

    a/b.jpg becomes a/b.png. b.jpg and b.tif at once become b.jpg.png and b.tif.png; what comes later leaves its name
    to who has it. Names that differ in case only fail (name_taken); so do those with a part of more than 200 bytes
    (name).

    \b
    Examples: fusebus convert photos png
              fusebus convert container:in-acme container:lossless/acme --format webp --json
    Exit codes: 0 all converted, 1 source, destination or record can't be used (a SOURCE that is not there, too),
    2 usage, 4 some failed (a folder below SOURCE that can't be listed is one), 130 interrupted: call it again to
    go on.
    """
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata, which is left behind anyway
    keep_freed_memory()
    target = Target(format=Format(name), small=small)
    options = Options(
        target=target,
        workers=workers or os.cpu_count() or 1,
        memory_bytes=(megabytes or 0) * MEGABYTE,
        replace=replace,
    )
    _refuse_overlap(source, destination)
    try:
        with _places(source, destination, target, settings_file) as (one, other), _stopped_by_signals() as stop:
            report = _run(one, other, options, stop, quiet=as_json)
    except (OSError, StorageError, RecordBusy) as error:
        raise click.ClickException(str(error)) from error
    click.echo(report_json(report)) if as_json else _say(report)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_SOME_FAILED if report.failures else 0)


def report_json(report: Report) -> bytes:
    """What `--json` prints."""
    plain = {
        "pictures": report.total,
        "converted": report.converted,
        "skipped": report.skipped,
        "left_alone": report.left_alone.total(),
        "left_alone_kinds": dict(report.left_alone),
        "failed": [{"name": one.source, "reason": one.failed, "text": one.text} for one in report.failures],
        "several_pictures": report.several,
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "seconds": round(report.seconds, 3),
        "interrupted": report.interrupted,
        "record": printable(report.record),
    }
    return msgspec.json.encode(plain)


def _run(
    source: Folder | Container, destination: Folder | Container, options: Options, stop: threading.Event, quiet: bool
) -> Report:
    columns = (TextColumn("converting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet) as progress:
        task, failed = progress.add_task("", total=None, failed=""), 0

        def tell(total: int, outcome: Outcome) -> None:
            nonlocal failed
            failed += bool(outcome.entry.failed)
            progress.update(task, total=total, advance=1, failed=f"{failed} failed" if failed else "")

        return convert_all(source, destination, options, stop, tell)


def _say(report: Report) -> None:
    for entry in report.failures[:FAILURES_SHOWN]:
        click.echo(_failure(entry), err=True)
    if len(report.failures) > FAILURES_SHOWN:
        more = len(report.failures) - FAILURES_SHOWN
        click.echo(f"failed: {more} more; the record has all", err=True)
    if report.several:
        first = display.name(report.several[0])
        click.echo(f"{len(report.several)} hold more than one picture, the first was taken: {first} …", err=True)
    words = f"{report.converted} converted, {report.skipped} unchanged, {len(report.failures)} failed"
    alone = f", {report.left_alone.total()} left alone ({_kinds(report.left_alone)})" if report.left_alone else ""
    seconds = max(report.seconds, 1e-9)
    rate = f"{report.converted / seconds:.1f} a second, {report.bytes_out / 1e6:.0f} MB written"
    click.echo(f"{report.total} pictures: {words}{alone}; {seconds:.1f} s, {rate}")
    click.echo(f"record    {display.one_line(printable(report.record), 4096)}")
    if report.interrupted:
        click.echo("interrupted: call it again to go on", err=True)


def _kinds(left_alone: Counter[LeftAlone]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in left_alone.most_common())


def _failure(entry: Entry) -> str:
    return f"failed: {display.name(entry.source)}: {display.one_line(entry.text, 300)} ({entry.failed})"


def _refuse_overlap(source: str, destination: str) -> None:
    """Results among the sources would be converted by the next call, or overwrite them."""
    one, other = _in_storage(source), _in_storage(destination)
    if one is None and not Path(source).is_dir():
        raise click.ClickException(f"{source} is no folder; name a folder, or {CONTAINER}NAME/PREFIX")
    if one is not None and other is not None:
        met = _starts_with(one, other) or _starts_with(other, one)
    else:
        folders = Path(os.path.realpath(source)), Path(os.path.realpath(destination))  # resolve() trips over a circle
        met = one is other is None and (_lies_in(*folders) or _lies_in(*reversed(folders)))
    if met:
        raise click.UsageError("SOURCE and DESTINATION lie in each other; name another DESTINATION")


def _in_storage(text: str) -> tuple[str, str] | None:
    """Container and prefix, the same however it is spelled; None for a folder."""
    if not text.startswith(CONTAINER):
        return None
    container, _, prefix = text.removeprefix(CONTAINER).partition("/")
    if not container or "\\" in text or not {".", ".."}.isdisjoint(text.removeprefix(CONTAINER).split("/")):
        raise click.UsageError(
            f"{text} is no place in storage: name {CONTAINER}NAME/PREFIX, without dots or backslashes"
        )
    return container, prefix.strip("/")


def _starts_with(inner: tuple[str, str], outer: tuple[str, str]) -> bool:
    return inner[0] == outer[0] and f"{inner[1]}/".startswith(f"{outer[1]}/" if outer[1] else "")


def _lies_in(inner: Path, outer: Path) -> bool:
    """Also where a mount, or a disk that takes `A` for `a`, gives one folder two paths."""
    return any(_is_same(one, outer) for one in (inner, *inner.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:  # a destination that is not there yet
        return False


@contextlib.contextmanager
def _places(
    source: str, destination: str, target: Target, settings_file: Path | None
) -> Iterator[tuple[Folder | Container, Folder | Container]]:
    with contextlib.ExitStack() as stack:
        storage: Storage | None = None
        if source.startswith(CONTAINER) or destination.startswith(CONTAINER):
            settings = load_settings(StorageSettings, "storage", environment_for_people(settings_file))
            storage = stack.enter_context(Storage(settings.blobs))

        def place(text: str) -> Folder | Container:
            if storage is None or (named := _in_storage(text)) is None:
                return Folder(Path(text))
            return Container(storage, *named, target.content_type)

        yield place(source), place(destination)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Ctrl-C, a kill or a closed terminal end it after the pictures in hand; the same again ends it at once."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Any] = {int(number): signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for wanted, handler in before.items():
            signal.signal(wanted, handler)
