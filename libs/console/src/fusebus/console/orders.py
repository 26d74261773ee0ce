"""`fusebus run-now` and `fusebus cancel`: a run begins before its window, passes others, or is not processed at all."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fusebus.bus import Bus, BusError, BusSettings, Taken
from fusebus.console.answers import json_text
from fusebus.console.attribution import short_reason, this_person
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.scaling import BY_OPTION, JSON_OPTION
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import CancelRun, ImageAccepted, JobKind, Lane, ReleaseRun
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import image_subscription, image_subscriptions
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import Ledger, LedgerError, LedgerSettings, RunRow, RunState, UploadRow

EXIT_ASKED = 3
"""It is asked for, and will happen; nobody has taken it up yet. Or some of it stays in queues: say it again."""
NOT_ALL = "not all of it could be taken out of the queues: say it again"
POLL_SECONDS = 0.5

Result = TypeVar("Result")


class OrderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What these commands need of the settings."""

    bus: BusSettings
    ledger: LedgerSettings


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """What `run-now` says."""

    run_id: str
    lane: str
    """Empty: each photo's own."""
    waited: int
    """Photos that waited for a window or for this command."""
    moved: int
    """Photos that waited in a queue, and went on in another lane."""
    moved_all: bool
    """Whether the queues were looked through to their end."""
    taken_up: bool
    waits_for_runs: tuple[str, ...] = ()
    """Where photos came first that came again in this run and have no end yet: theirs follows from those."""


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What `cancel` says."""

    run_id: str
    cancelled: int
    """Uploads that end so."""
    done_before: int
    taken_out: int
    """Messages that were removed from queues."""
    taken_out_all: bool
    """Whether the queues were looked through to their end."""
    taken_up: bool


WAIT_OPTION = click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it is taken up.",
)


@click.command("run-now")
@click.argument("run_id", metavar="RUN")
@click.option(
    "--lane",
    type=click.Choice([lane.value for lane in Lane]),
    default=Lane.URGENT.value,
    show_default=True,
    help="Class of service from now on: urgent passes all that is not.",
)
@WAIT_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def run_now(
    run_id: str, lane: str, wait_seconds: float, author: str | None, as_json: bool, settings_file: Path | None
) -> None:
    """Process RUN now: its photos wait for no window, and go in another lane, those in a queue too.

    Photos that still arrive in the run follow at once. What a worker holds already goes on as it is.

    \b
    Example: fusebus run-now 20261121T103000Z-acme-0f0f0f0f
             fusebus run-now 20261121T103000Z-acme-0f0f0f0f --lane normal
    Exit codes: 0 on its way, 1 ledger or bus could not be reached, 2 usage (an unknown, complete or cancelled run too),
                3 asked for, but no ingest has taken it up yet, or not all that waits in queues was moved: say it again.
    """
    order = Lane(lane)

    async def work(ledger: Ledger, bus: Bus) -> Released:
        now = datetime.now(UTC)
        run = await _unfinished(ledger, run_id)
        uploads = await ledger.uploads(run_id)
        waiting = [upload for upload in uploads if upload.waits(run, now)]
        message = ReleaseRun(
            run_id=run_id, supplier=run.supplier, opens_at=now, requested_by=author or this_person(), lane=order
        )
        await bus.publisher().publish([Outgoing(message=message)])

        async def is_taken_up() -> bool:
            found = await ledger.run(run_id)
            return found is not None and found.released_at is not None and found.lane is order

        taken_up = await _eventually(is_taken_up, wait_seconds)
        moved = await _move(bus, run_id, order)
        return Released(
            run_id=run_id,
            lane=lane,
            waited=len(waiting),
            moved=moved.messages,
            moved_all=moved.is_all,
            taken_up=taken_up,
            waits_for_runs=_first_in(run_id, uploads),
        )

    told = _with_both(settings_file, work)
    words = [f"{run_id} goes now, {told.lane}: {told.waited:,} photos had waited, {told.moved:,} pass others in queues"]
    words += [] if told.taken_up else ["no ingest has taken it up yet; it will once one runs"]
    words += [
        f"some of its photos came first in {run}: they follow from fusebus run-now {run}" for run in told.waits_for_runs
    ]
    _tell(as_json, told, words + ([] if told.moved_all else [NOT_ALL]))
    sys.exit(0 if told.taken_up and told.moved_all else EXIT_ASKED)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--reason", default="", help="Why; its supplier reads it.")
@WAIT_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def cancel(
    run_id: str, reason: str, wait_seconds: float, author: str | None, as_json: bool, settings_file: Path | None
) -> None:
    """Process nothing more of RUN: each photo that is not done ends as cancelled, and its supplier gets the summary.

    Results that are there stay. The photos stay in storage; who uploads one again has it processed.

    \b
    Example: fusebus cancel 20261121T103000Z-acme-0f0f0f0f --reason "sent twice"
    Exit codes: 0 cancelled (a cancelled run stays so), 1 ledger or bus could not be reached,
                2 usage (an unknown or complete run too), 3 asked for, but no notifier has taken it up yet, or not all
                of it was taken out of the queues: say it again.
    """

    async def work(ledger: Ledger, bus: Bus) -> Cancelled:
        run = await _unfinished(ledger, run_id, cancelled=True)
        message = CancelRun(
            run_id=run_id,
            supplier=run.supplier,
            requested_by=author or this_person(),
            asked_at=datetime.now(UTC),
            reason=short_reason(reason),
        )
        await bus.publisher().publish([Outgoing(message=message)])
        found: list[UploadRow] = []

        async def is_taken_up() -> bool:
            after = await ledger.run(run_id)
            if after is None or after.cancelled_at is None:
                return False
            found[:] = await ledger.uploads(run_id)
            return all(upload.final is not None for upload in found)

        taken_up = await _eventually(is_taken_up, wait_seconds)
        taken_out = _sum([await bus.take_out("images", name, run_id) for name in _queues()] if taken_up else [])
        ends = Counter(upload.final is not None and upload.final.reason == "cancelled" for upload in found)
        return Cancelled(
            run_id=run_id,
            cancelled=ends[True],
            done_before=ends[False] if taken_up else 0,
            taken_out=taken_out.messages,
            taken_out_all=taken_up and taken_out.is_all,
            taken_up=taken_up,
        )

    told = _with_both(settings_file, work)
    if told.taken_up:
        words = [f"{run_id} is cancelled: {told.cancelled:,} photos are not processed, {told.done_before:,} were done"]
        words += [] if told.taken_out_all else [NOT_ALL]
    else:
        words = [f"{run_id} is told to end; no notifier has taken it up yet, it will once one runs"]
        words.append("what waits in queues stays there until then: say it again")
    _tell(as_json, told, words)
    sys.exit(0 if told.taken_out_all else EXIT_ASKED)


def _first_in(run_id: str, uploads: Sequence[UploadRow]) -> tuple[str, ...]:
    """The other runs whose photos these uploads wait for."""
    return tuple(sorted({one.waits_for_run for one in uploads if one.final is None and one.waits_for} - {run_id, ""}))


async def _move(bus: Bus, run_id: str, lane: Lane) -> Taken:
    """Messages of the run that wait in other lanes go on in this one."""

    def instead(envelope: Envelope) -> Envelope | None:
        if not isinstance(envelope.message, ImageAccepted):
            return None
        moved = msgspec.structs.replace(envelope.message, lane=lane)
        # Another message id, or duplicate detection takes it for the one that it replaces.
        return msgspec.structs.replace(envelope, message=moved, replay=envelope.replay + 1, only=None)

    others = [name for name in _queues() if name not in {image_subscription(kind, lane) for kind in JobKind}]
    return _sum([await bus.take_out("images", name, run_id, instead) for name in others])


def _sum(taken: Sequence[Taken]) -> Taken:
    return Taken(sum(one.messages for one in taken), all(one.is_all for one in taken))


def _queues() -> list[str]:
    return [name for kind in JobKind for name in image_subscriptions(kind)]


async def _unfinished(ledger: Ledger, run_id: str, cancelled: bool = False) -> RunRow:
    """The run. Raises click.UsageError where there is none, or nothing can be changed about it any more."""
    run = await ledger.run(run_id)
    if run is None:
        known = ", ".join(one.run_id for one in await ledger.runs(limit=3)) or "none"
        raise click.UsageError(f"there is no run {run_id!r}; the newest are {known}")
    if run.cancelled_at is not None and not cancelled:
        raise click.UsageError(f"{run_id} was cancelled by {run.cancelled_by}: upload the photos again")
    if run.state is RunState.COMPLETE and run.cancelled_at is None:
        raise click.UsageError(f"{run_id} is complete already")
    return run


async def _eventually(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (holds := await condition()) and time.monotonic() < until:
        await asyncio.sleep(POLL_SECONDS)
    return holds


def _with_both(settings_file: Path | None, work: Callable[[Ledger, Bus], Awaitable[Result]]) -> Result:
    """Do `work` on the ledger and the bus that the settings name; what can't be reached ends with exit code 1."""
    settings = load_settings(OrderSettings, "console", environment_for_people(settings_file))

    async def run() -> Result:
        async with AsyncExitStack() as exits:
            ledger = await exits.enter_async_context(Ledger(settings.ledger))
            return await work(ledger, await exits.enter_async_context(Bus(settings.bus)))

    try:
        return asyncio.run(run())
    except LedgerError as error:
        raise click.ClickException(f"the ledger can't be reached: {error}; is the stack up (fusebus up)?") from error
    except BusError as error:
        raise click.ClickException(f"the bus can't be reached: {error}; is the stack up (fusebus up)?") from error


def _tell(as_json: bool, found: msgspec.Struct, words: list[str]) -> None:
    if as_json:
        click.echo(json_text(found))
        return
    click.echo(words[0])
    for further in words[1:]:
        click.echo(further, err=True)
