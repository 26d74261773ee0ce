"""`fusebus up`, `down`, `run` and `demo`: the commands that start the embedded stack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from fusebus.blobs import Blobs, StorageError
from fusebus.blobs.layout import supplier_container
from fusebus.bus import BusError
from fusebus.console.photos import NothingToSend, Photo, photos_in
from fusebus.console.settings import console_settings
from fusebus.console.uploading import Sent
from fusebus.ledger import LedgerError
from fusebus.stack.azurite import AzuriteError
from fusebus.stack.delivery import Delivered, Stalled, deliver
from fusebus.stack.demo_photos import Delivery, make_delivery
from fusebus.stack.display import Display
from fusebus.stack.processes import ProcessFailed, started_at
from fusebus.stack.results import FOLDERS, Local, fetch_results, results_json, results_table
from fusebus.stack.stack import Stack, StackOptions

EXIT_FAILED = 1
EXIT_SOME_REJECTED = 3
EXIT_SOME_FAILED = 4
EXIT_INTERRUPTED = 130
STACK_FOLDER = Path(".fusebus")
PROCESS_FILE = "up.pid"
DOWN_LIMIT_SECONDS = 60.0
WATCH_SECONDS = 1.0
CLOSE_LONG_SECONDS = 86_400.0
"""`fusebus run` closes its run itself, so that a slow upload never splits it."""
DEMO_SUPPLIER = "demo-supplier"

OTHER_ENDS = (signal.SIGTERM, signal.SIGHUP)
"""A kill, a closed terminal: they end as Ctrl-C does, with everything stopped."""

EXPECTED_ERRORS = (ProcessFailed, AzuriteError, Stalled, StorageError, LedgerError, BusError)


@click.command()
@click.option(
    "--convert",
    "converters",
    type=click.IntRange(0, 64),
    default=0,
    help="Convert uploads to PNG instead of analysing them, with so many workers.",
)
@click.option(
    "--otlp",
    default="",
    metavar="URL",
    help="Send traces and metrics to an OpenTelemetry collector there (OTLP over HTTP).",
)
def up(converters: int, otlp: str) -> None:
    """Start the embedded stack here and keep it up until Ctrl-C or `fusebus down`.

    Everything is kept in memory and gone afterwards. Other terminals find it through .fusebus/settings.toml.

    \b
    Example: fusebus up
    Example: fusebus up --convert 2
    Example: fusebus up --otlp http://localhost:4318
    Exit codes: 0 stopped, 1 a part could not start or stay up, 2 usage.
    """
    running = _running_process()
    if running is not None:
        raise click.UsageError(f"a stack is up here already (process {running}); stop it with: fusebus down")
    with _process_file(), _failures_explained():
        asyncio.run(_up(converters, otlp))


@click.command()
def down() -> None:
    """Stop the stack that `fusebus up` started in this folder: services finish what is in hand first.

    \b
    Example: fusebus down
    Exit codes: 0 stopped or nothing was up, 1 it did not stop in time.
    """
    process = _running_process()
    if process is None:
        click.echo("nothing is up here")
        return
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_LIMIT_SECONDS
    while _running_process() is not None:
        if time.monotonic() > deadline:
            raise click.ClickException(f"process {process} did not stop within {DOWN_LIMIT_SECONDS:.0f} s")
        time.sleep(0.1)
    click.echo("down")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where results go; made if missing.")
@click.option("--supplier", default="local", show_default=True, help="Whose delivery it is, as the report says.")
@click.option("--replace", is_flag=True, help="Remove the results of an earlier run from --out first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def run(folder: Path, out: Path, supplier: str, replace: bool, as_json: bool) -> None:
    """Analyse every photo below FOLDER on this machine: pictures, JSON, a report and the summary mail in --out.

    \b
    Example: fusebus run photos --out results
    Exit codes: 0 all analysed, 1 the stack failed, 2 usage, 3 some rejected (duplicates too), 4 some failed,
    130 interrupted.
    """
    try:
        supplier_container(supplier)
        photos = photos_in(folder)
    except (ValueError, NothingToSend) as error:
        raise click.UsageError(str(error)) from error
    _clear(out, replace)
    with _failures_explained():
        delivered, local = asyncio.run(_deliver(photos, supplier, out, quiet=as_json, close=True))
    click.echo(results_json(delivered, local)) if as_json else Console().print(results_table(delivered, local, out))
    sys.exit(exit_code(delivered))


@click.command()
@click.option("--out", default=Path("out/demo"), show_default=True, type=click.Path(path_type=Path), help="Replaced.")
def demo(out: Path) -> None:
    """Make 24 synthetic photos (some damaged) and take them through the whole flow on this machine.

    \b
    Example: fusebus demo --out out/demo
    Exit codes: 0 the ledger agrees with what was sent, 1 it does not or the stack failed.
    """
    _clear(out, replace=True)
    photos_folder = out / "photos"
    shutil.rmtree(photos_folder, ignore_errors=True)
    _step("drawing photos")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        made = make_delivery(photos_folder, lambda done, total: progress.update(task, completed=done, total=total))
    with _failures_explained():
        photos = photos_in(photos_folder)
        delivered, local = asyncio.run(_deliver(photos, DEMO_SUPPLIER, out, quiet=False, close=False))
    problems = _disagreements(delivered, local, out, made)
    for problem in problems:
        click.echo(f"demo: {problem}", err=True)
    click.echo(f"pictures  {out / 'annotated'}\njson      {out / 'json'}\nreport    {out / 'report' / 'index.html'}")
    click.echo(
        f"mail      {out / 'mail'}\ntime      {delivered.seconds:.0f} s from the first upload to the last node's end"
    )
    click.echo(
        f"demo: {len(delivered.sent)} images: {delivered.analysed} analysed, {delivered.rejected} rejected, "
        f"{delivered.failed} failed; {delivered.last.nodes.present} nodes left"
    )
    sys.exit(EXIT_FAILED if problems else 0)


async def _up(converters: int, otlp: str) -> None:
    further = {"telemetry": {"exporter": "otlp", "endpoint": otlp}} if otlp else {}
    options = StackOptions(folder=STACK_FOLDER, converters=converters, overrides=further, progress=_step)
    stop = asyncio.Event()
    for number in (signal.SIGINT, *OTHER_ENDS):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Stack(options) as stack:
        click.echo(f"settings  {stack.settings_file}\nlogs      {stack.folder / 'logs'}\nmail      {stack.mail_folder}")
        for name, address in stack.metrics().items():
            click.echo(f"metrics   {address}  {name}")
        click.echo("up: fusebus upload FOLDER --supplier NAME, fusebus status --watch; Ctrl-C or fusebus down stops it")
        while not stop.is_set() and not stack.failures():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WATCH_SECONDS)
        if failures := stack.failures():
            raise ProcessFailed("\n".join(failures))
        _step("stopping: services finish what is in hand")


async def _deliver(
    photos: list[Photo], supplier: str, out: Path, quiet: bool, close: bool
) -> tuple[Delivered, list[Local]]:
    work = asyncio.current_task()
    assert work is not None
    for number in OTHER_ENDS:
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    async with _temporary_stack(out, quiet, close) as stack:
        settings = console_settings(stack.settings_file)
        with Display(len(photos), quiet) as display:
            delivered = await deliver(
                stack,
                settings,
                supplier,
                photos,
                close_when_entered=close,
                on_upload=display.sent,
                on_look=display.show,
            )
        if not quiet:
            _step("fetching results, then stopping")
        async with Blobs(settings.blobs) as blobs:
            local = await fetch_results(blobs, delivered.last.runs, delivered.last.uploads, out)
    return delivered, local


@contextlib.asynccontextmanager
async def _temporary_stack(out: Path, quiet: bool, close: bool) -> AsyncIterator[Stack]:
    """A stack in a folder of its own, which stays when something fails: its logs are the explanation."""
    folder = Path(tempfile.mkdtemp(prefix="fusebus-"))
    options = StackOptions(
        folder=folder,
        mail_folder=out / "mail",
        run_quiet_seconds=CLOSE_LONG_SECONDS if close else StackOptions.run_quiet_seconds,
        progress=(lambda _: None) if quiet else _step,
    )
    try:
        async with Stack(options) as stack:
            yield stack
    except BaseException:
        _step(f"the stack's logs are in {folder / 'logs'}")
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _step(text: str) -> None:
    click.echo(f"fusebus: {text}", err=True)


@contextlib.contextmanager
def _failures_explained() -> Iterator[None]:
    try:
        yield
    except* EXPECTED_ERRORS as group:
        texts = "\n".join(str(error) for error in _leaves(group))
        raise click.ClickException(texts) from group
    except* (KeyboardInterrupt, asyncio.CancelledError):
        _step("interrupted; the stack is stopped")
        sys.exit(EXIT_INTERRUPTED)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextlib.contextmanager
def _process_file() -> Iterator[None]:
    STACK_FOLDER.mkdir(exist_ok=True)
    file = STACK_FOLDER / PROCESS_FILE
    file.write_text(f"{os.getpid()}\n{started_at(os.getpid())}")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _running_process() -> int | None:
    """The process that keeps a stack up in this folder; a number that the system gave to another process is not it."""
    try:
        number, started = (STACK_FOLDER / PROCESS_FILE).read_text().split("\n")
    except (OSError, ValueError):
        return None
    return int(number) if started_at(int(number)) == started else None


def _clear(out: Path, replace: bool) -> None:
    """Make `out` ready; results of an earlier run are only removed when asked for, anything else never."""
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out {out} is a file; name a folder")
    present = [name for name in FOLDERS if (out / name).exists()]
    if present and not replace:
        raise click.UsageError(
            f"--out {out} holds results already ({', '.join(present)}); add --replace or name another"
        )
    for name in present:
        shutil.rmtree(out / name)
    out.mkdir(parents=True, exist_ok=True)


def exit_code(delivered: Delivered) -> int:
    """What `fusebus run` ends with: 4 where some failed, else 3 where some were rejected, else 0."""
    if delivered.failed:
        return EXIT_SOME_FAILED
    return EXIT_SOME_REJECTED if delivered.rejected else 0


def _disagreements(delivered: Delivered, local: list[Local], out: Path, made: Delivery) -> list[str]:
    """Every way in which ledger, files and Batch differ from what was sent."""
    last = delivered.last
    pictures = sum((out / found.annotated).is_file() and (out / found.json).is_file() for found in local if found.json)
    expected = [
        ("files sent", sum(upload.sent is Sent.SENT for upload in delivered.sent), made.images),
        ("uploads in the ledger", len({row.upload_id for row in last.uploads}), made.images),
        ("analysed", delivered.analysed, made.images - made.to_be_rejected),
        ("rejected", delivered.rejected, made.to_be_rejected),
        ("failed", delivered.failed, 0),
        ("pictures with JSON", pictures, delivered.analysed),
        ("mails", len(list((out / "mail").glob("*.eml"))), len(last.runs)),
        ("dead letters", sum(queue.dead_letters or 0 for queue in last.queues), 0),
        ("nodes left", last.nodes.present, 0),
    ]
    return [f"{what}: {found}, expected {wanted}" for what, found, wanted in expected if found != wanted]
