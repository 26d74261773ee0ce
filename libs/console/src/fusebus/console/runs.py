"""`fusebus close` and `fusebus reprocess`: people's word about a run."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fusebus.blobs import Blobs, BlobSettings, StorageError, layout
from fusebus.bus import Bus, BusError, BusSettings
from fusebus.console.answers import json_text
from fusebus.console.attribution import this_person
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.moments import ahead, said
from fusebus.console.scaling import BY_OPTION, JSON_OPTION
from fusebus.contracts.messages import CloseRun, JobKind, Lane, RunCheck
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import image_subscriptions
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import (
    FinalKind,
    Ledger,
    LedgerError,
    LedgerSettings,
    Rerun,
    RunRow,
    RunState,
    UploadRow,
    work_again,
)
from fusebus.models.settings import RegistrySettings

EXIT_NOTHING = 3
"""There is nothing to analyse again."""
SENT_AT_ONCE = 500  # messages

Result = TypeVar("Result")


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What these commands need of the settings."""

    bus: BusSettings
    blobs: BlobSettings
    ledger: LedgerSettings
    models: RegistrySettings


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A run's photos, as far as another analysis is concerned."""

    uploads: list[UploadRow]
    """To be analysed again."""
    left_out: dict[str, int]
    """How many others there are, by reason."""


class Reprocessed(msgspec.Struct, frozen=True, kw_only=True):
    """What `fusebus reprocess` says."""

    run_id: str
    """The new run; empty where none was made."""
    reprocess_of: str
    model: str
    images: int
    """That are analysed again."""
    outstanding: int
    """Of these, those that have no final yet."""
    sent: int = 0
    """Of the outstanding, those that were sent now: the others are in a queue, or with a worker."""
    left_out: dict[str, int]
    dry_run: bool
    warning: str = ""


@click.command()
@click.argument("run_id", metavar="RUN")
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def close(run_id: str, author: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Close RUN now instead of when nothing has come for a while; a later upload opens a new run.

    \b
    Example: fusebus close 20261121T103000Z-acme-0f0f0f0f
    Exit codes: 0 told (a closed run stays closed), 1 ledger or bus could not be reached, 2 usage (an unknown run too).
    """

    async def work(ledger: Ledger, bus: Bus, blobs: Blobs) -> RunRow:
        run = await _known(ledger, run_id)
        if run.state is RunState.OPEN:
            message = CloseRun(run_id=run_id, supplier=run.supplier, requested_by=author or this_person())
            await bus.publisher().publish([Outgoing(message=message)])
        return run

    run = _with_all(settings_file, work)
    was = "is told to close" if run.state is RunState.OPEN else f"was {run.state.value} already"
    _tell(as_json, {"run_id": run_id, "was": run.state.value}, [f"{run_id} {was}"])


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--model", required=True, metavar="NAME@VERSION", help="A version that serves: live, or the canary.")
@click.option(
    "--lane",
    type=click.Choice([lane.value for lane in Lane]),
    default=Lane.BULK.value,
    show_default=True,
    help="Class of service, so that deliveries go first.",
)
@click.option("--deadline", default="24h", show_default=True, metavar="SPAN", help="By when: 90m, 24h, 7d.")
@click.option("--dry-run", is_flag=True, help="Only say how many photos it would be.")
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def reprocess(
    run_id: str,
    model: str,
    lane: str,
    deadline: str,
    dry_run: bool,
    author: str | None,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Analyse the photos of RUN again with another model; the old results stay.

    The photos get a new run, with results and a summary of its own that names the model. Photos that failed are tried
    too; refused files, duplicates, conversions and what this model has seen already are left out. The same command
    again continues where it was interrupted: it sends what has no final yet and is in no queue. It does no harm: what
    is sent twice all the same is analysed once.

    \b
    Example: fusebus reprocess 20261121T103000Z-acme-0f0f0f0f --model fuses@2 --dry-run
             fusebus reprocess 20261121T103000Z-acme-0f0f0f0f --model fuses@2
    Exit codes: 0 on its way (or done before), 1 ledger, storage or bus could not be reached,
                2 usage (an unknown or unfinished run, a model that does not serve), 3 nothing to analyse again.
    """
    now = datetime.now(UTC)
    seconds = _seconds(deadline, now)

    async def work(ledger: Ledger, bus: Bus, blobs: Blobs) -> Reprocessed:
        run = await _known(ledger, run_id)
        _refuse_unfit(run)
        warning = await _unserved(model, blobs, _settings(settings_file).models)
        there = await ledger.rerun(run_id, model)
        found = chosen(await ledger.uploads(run_id), model)
        told = Reprocessed(
            run_id=there.run_id if there else "",
            reprocess_of=run_id,
            model=model,
            images=len(found.uploads),
            outstanding=len(found.uploads),
            left_out=found.left_out,
            dry_run=dry_run,
            warning=warning,
        )
        if dry_run or not found.uploads:
            return told
        rerun = there or await ledger.begin_rerun(run, model, now, author or this_person())
        under_way = frozenset[str]()
        if await ledger.run(rerun.run_id) is None:
            await ledger.enter_again(rerun, run, found.uploads, Lane(lane), seconds)
        else:
            queues = image_subscriptions(JobKind.DETECT)
            under_way = under_way.union(*[await bus.waiting("images", name, rerun.run_id) for name in queues])
        left, sent = await _send(rerun, run, ledger, bus, under_way)
        return msgspec.structs.replace(told, run_id=rerun.run_id, outstanding=left, sent=sent)

    told = _with_all(settings_file, work)
    _tell(as_json, told, _words(told, now))
    sys.exit(0 if told.images else EXIT_NOTHING)


def chosen(uploads: Sequence[UploadRow], model: str) -> Chosen:
    """Which of a finished run's uploads are analysed again with `model`."""
    again: list[UploadRow] = []
    left_out: Counter[str] = Counter()
    for upload in uploads:
        if why := _left_out(upload, model):
            left_out[why] += 1
        else:
            again.append(upload)
    return Chosen(uploads=again, left_out=dict(sorted(left_out.items())))


def _left_out(upload: UploadRow, model: str) -> str:
    final = upload.final
    if upload.image is None or final is None:
        return "refused"
    if final.kind is FinalKind.FAILED:
        return "converted" if upload.job_kind is JobKind.CONVERT else "duplicate" if final.duplicate_of else ""
    if final.kind is FinalKind.ANALYSED:
        return "analysed with it before" if final.model == model else ""
    return "refused" if final.kind is FinalKind.REJECTED else final.kind.value


async def _send(rerun: Rerun, run: RunRow, ledger: Ledger, bus: Bus, under_way: Collection[str]) -> tuple[int, int]:
    """Publish the work that has no final yet and is not under way, and the look that completes the new run.

    How many uploads have no final, and for how many of them work was sent.
    """
    new = await ledger.run(rerun.run_id)
    if new is None or new.state is RunState.COMPLETE:
        return 0, 0
    publish = bus.publisher().publish
    left = [upload for upload in await ledger.uploads(rerun.run_id) if upload.final is None]
    missing = [upload for upload in left if upload.upload_id not in under_way]
    for start in range(0, len(missing), SENT_AT_ONCE):
        part = missing[start : start + SENT_AT_ONCE]
        await publish([Outgoing(message=work_again(rerun, upload, layout.RESULTS)) for upload in part])
    await publish([Outgoing(message=RunCheck(run_id=rerun.run_id, supplier=run.supplier))])
    return len(left), len(missing)


async def _unserved(model: str, blobs: Blobs, settings: RegistrySettings) -> str:
    """A warning where it can't be known what serves. Raises click.UsageError for a version that does not."""
    from fusebus.models.live import RegistryError
    from fusebus.models.places import parse_ref
    from fusebus.models.registry import Registry

    try:
        parse_ref(model)
        live = await Registry(blobs, settings).live()
    except RegistryError as error:
        raise click.UsageError(f"--model: {error}") from error
    if live is None or live.current is None:
        return f"nothing is promoted in the registry: photos wait until a worker whose settings name {model} takes them"
    served = [found.ref for found in (live.current, live.canary) if found is not None]
    if model not in served:
        raise click.UsageError(
            f"{model} does not serve; what does: {', '.join(served)}. "
            f"First: fusebus model promote {model} --canary 1 (or without --canary)"
        )
    return ""


def _refuse_unfit(run: RunRow) -> None:
    if run.reprocess_of:
        raise click.UsageError(f"{run.run_id} is itself an analysis of {run.reprocess_of}: reprocess that one")
    if run.state is not RunState.COMPLETE:
        raise click.UsageError(f"{run.run_id} is {run.state.value}: wait until it is complete (fusebus status)")


async def _known(ledger: Ledger, run_id: str) -> RunRow:
    run = await ledger.run(run_id) if run_id.replace("-", "").isalnum() else None
    if run is None:
        raise click.UsageError(f"there is no run {run_id[:120]!r}; fusebus status shows the newest")
    return run


def _words(told: Reprocessed, now: datetime) -> list[str]:
    out = ", ".join(f"{count:,} {why}" for why, count in told.left_out.items())
    rest = f" ({out} left out)" if out else ""
    photos = f"{told.images:,} photo{'s' * (told.images != 1)}"
    if told.dry_run or not told.images:
        begun = f"; run {told.run_id} did it" if told.run_id else ""
        return [f"{photos} of {told.reprocess_of} to be analysed with {told.model}{rest}{begun}", told.warning]
    if not told.outstanding:
        return [f"{photos} of {told.reprocess_of} were analysed with {told.model}: run {told.run_id}{rest}"]
    return [
        f"{told.outstanding:,} of {photos} of {told.reprocess_of} are on their way to {told.model}{rest}"
        + (f"; {told.outstanding - told.sent:,} of them were before" if told.sent < told.outstanding else ""),
        f"their results and summary come in run {told.run_id}: fusebus status",
        told.warning,
    ]


def _seconds(span: str, now: datetime) -> float:
    try:
        seconds = (ahead(span, now) - now).total_seconds()
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"--deadline: {span!r} is no span of time: write 90m, 24h or 7d") from error
    if seconds <= 0:
        raise click.UsageError(f"--deadline {span} is over already ({said(now, now)})")
    return seconds


def _settings(settings_file: Path | None) -> RunSettings:
    return load_settings(RunSettings, "console", environment_for_people(settings_file))


def _with_all(settings_file: Path | None, work: Callable[[Ledger, Bus, Blobs], Awaitable[Result]]) -> Result:
    """Do `work`; what can't be reached ends with exit code 1."""
    settings = _settings(settings_file)

    async def run() -> Result:
        async with Ledger(settings.ledger) as ledger, Blobs(settings.blobs) as blobs, Bus(settings.bus) as bus:
            return await work(ledger, bus, blobs)

    try:
        return asyncio.run(run())
    except (LedgerError, StorageError, BusError) as error:
        raise click.ClickException(f"it can't be reached: {error}; is the stack up (fusebus up)?") from error


def _tell(as_json: bool, found: object, words: list[str]) -> None:
    if as_json:
        click.echo(json_text(found))
        return
    for number, line in enumerate(filter(None, words)):
        click.echo(line, err=number > 1)
