"""`fusebus scale`, `pause` and `resume`: people's word to the dispatcher, kept in the ledger."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fusebus.console.attribution import short_reason, this_person
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.explaining import stale_words
from fusebus.console.moments import ahead, said
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import Ledger, LedgerError, LedgerSettings, Pause, Pin, PoolStatus

LONGEST_PIN = timedelta(days=31)  # a pin is for an occasion; what should last belongs into the settings

Result = TypeVar("Result")


class LedgerOnly(msgspec.Struct, frozen=True, kw_only=True):
    """What these commands need of the settings."""

    ledger: LedgerSettings


def with_ledger(settings_file: Path | None, work: Callable[[Ledger], Awaitable[Result]]) -> Result:
    """Do `work` on the ledger that the settings name; a ledger that can't be reached ends with exit code 1."""
    settings = load_settings(LedgerOnly, "console", environment_for_people(settings_file))

    async def run() -> Result:
        async with Ledger(settings.ledger) as ledger:
            return await work(ledger)

    try:
        return asyncio.run(run())
    except LedgerError as error:
        raise click.ClickException(f"the ledger can't be reached: {error}; is the stack up (fusebus up)?") from error


JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
REASON_OPTION = click.option("--reason", default="", help="Why; shown by fusebus why and fusebus pools.")
BY_OPTION = click.option("--by", "author", help="Who says so; default: user@machine.")


@click.command()
@click.argument("pool")
@click.argument("nodes")
@click.option("--until", metavar="TIME", help="When the pin ends: 90m, 2h, 18:30, 2026-11-22T06:00 (UTC). Required.")
@REASON_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def scale(
    pool: str,
    nodes: str,
    until: str | None,
    reason: str,
    author: str | None,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Pin POOL to NODES nodes until TIME, or hand it back to the dispatcher with `auto`.

    Workers follow the work on the pinned nodes; above the number they give their work back. The pool's own maximum
    and the quota hold for a pin too.

    \b
    Example: fusebus scale gpu 3 --until 18:30 --reason "demo for the board"
             fusebus scale gpu auto
    Exit codes: 0 set, 1 the ledger could not be reached, 2 usage (an unknown pool too).
    """
    now = datetime.now(UTC)
    if nodes == "auto":
        lifted = with_ledger(settings_file, lambda ledger: _lift(ledger, pool, now))
        words = f"pool {pool} is the dispatcher's again" if lifted else f"pool {pool} was not pinned"
        _tell(as_json, {"pool": pool, "pinned": False, "was_pinned": lifted}, [words])
        return
    if not nodes.isdecimal():
        raise click.UsageError(f"NODES is a number or `auto`, not {nodes!r}")
    if until is None:
        raise click.UsageError("--until is missing: a pin ends by itself, so that no node is forgotten")
    pin = Pin(
        pool=pool,
        nodes=int(nodes),
        until=_until(until, now, LONGEST_PIN),
        set_by=author or this_person(),
        set_at=now,
        reason=short_reason(reason),
    )
    status = with_ledger(settings_file, lambda ledger: _pin(ledger, pin))
    words = f"pool {pool} is pinned to {pin.nodes} node{'s' * (pin.nodes != 1)} until {said(pin.until, now)}"
    _tell(as_json, {"pinned": True, "pin": pin, "status": status}, [words, stale_words(status, now)])


@click.command()
@click.argument("pool", required=False)
@click.option("--until", metavar="TIME", help="When the pause ends: 90m, 18:30, … (UTC); default: when it is lifted.")
@click.option("--to-zero", is_flag=True, help="Kill switch: buy nothing, drain every worker, remove every node.")
@REASON_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def pause(
    pool: str | None,
    until: str | None,
    to_zero: bool,
    reason: str,
    author: str | None,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Let the dispatcher leave POOL, or all pools, as they are; with --to-zero, empty them.

    A paused pool goes on costing what it has. The kill switch loses no image: workers give back what they have not
    finished, and it waits in the queue.

    \b
    Example: fusebus pause --until 2h --reason "Batch maintenance"
             fusebus pause gpu --to-zero --reason "driver bug"
    Exit codes: 0 set, 1 the ledger could not be reached, 2 usage (an unknown pool too).
    """
    now = datetime.now(UTC)
    order = Pause(
        pool=pool or "",
        to_zero=to_zero,
        until=_until(until, now, None) if until else None,
        set_by=author or this_person(),
        set_at=now,
        reason=short_reason(reason),
    )
    statuses = with_ledger(settings_file, lambda ledger: _pause(ledger, order))
    what = f"pool {pool}" if pool else "every pool"
    does = "is emptied" if to_zero else "is left as it is"
    end = f"until {said(order.until, now)}" if order.until else "until fusebus resume"
    stale = [stale_words(status, now) for status in statuses if not pool or status.pool == pool]
    _tell(as_json, {"pause": order}, [f"{what} {does} {end}", *stale[:1]])


@click.command()
@click.argument("pool", required=False)
@JSON_OPTION
@SETTINGS_OPTION
def resume(pool: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Lift the pause (or kill switch) of POOL; without POOL every pause there is.

    \b
    Example: fusebus resume
    Exit codes: 0 lifted or nothing to lift, 1 the ledger could not be reached, 2 usage.
    """
    now = datetime.now(UTC)
    lifted, left = with_ledger(settings_file, lambda ledger: _resume(ledger, pool, now))
    names = [f"pool {name}" if name else "all pools" for name in lifted]
    words = f"lifted the pause of {', '.join(names)}" if lifted else "nothing was paused here"
    still = f"all pools are paused by {left.set_by} all the same: fusebus resume lifts that" if left else ""
    _tell(as_json, {"lifted": lifted, "still_paused": left is not None}, [words, still])


async def known_pool(ledger: Ledger, pool: str) -> PoolStatus:
    """The pool's last status. Raises click.UsageError where no dispatcher ever looked at such a pool."""
    statuses = {status.pool: status for status in await ledger.pool_statuses()}
    if pool not in statuses:
        known = ", ".join(statuses) or "none: no dispatcher has looked at any yet"
        raise click.UsageError(f"there is no pool {pool!r}; known are {known}")
    return statuses[pool]


async def _pin(ledger: Ledger, pin: Pin) -> PoolStatus:
    status = await known_pool(ledger, pin.pool)
    if pin.nodes > status.max_nodes:
        raise click.UsageError(f"pool {pin.pool} may have at most {status.max_nodes} nodes (dispatcher settings)")
    await ledger.set_pin(pin)
    return status


async def _lift(ledger: Ledger, pool: str, now: datetime) -> bool:
    await known_pool(ledger, pool)
    return await ledger.lift_pin(pool, now)


async def _pause(ledger: Ledger, order: Pause) -> list[PoolStatus]:
    if order.pool:
        await known_pool(ledger, order.pool)
    await ledger.set_pause(order)
    return await ledger.pool_statuses()


async def _resume(ledger: Ledger, pool: str | None, now: datetime) -> tuple[list[str], Pause | None]:
    """What was lifted, and the pause of all pools that holds on."""
    if pool:
        await known_pool(ledger, pool)
    pauses = (await ledger.controls(now)).pauses
    names = [pool] if pool else list(pauses)
    lifted = [name for name in names if await ledger.lift_pause(name, now)]
    return lifted, pauses.get("") if pool else None


def _until(text: str, now: datetime, longest: timedelta | None) -> datetime:
    try:
        moment = ahead(text, now)
    except ValueError as error:
        raise click.UsageError(f"--until: {error}") from error
    if moment <= now:
        raise click.UsageError(f"--until {text} is over already")
    if longest is not None and moment - now > longest:
        raise click.UsageError(f"--until {text} is more than {longest.days} days away: change the settings instead")
    return moment


def _tell(as_json: bool, found: object, words: list[str]) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(words[0])
    for further in filter(None, words[1:]):
        click.echo(further, err=True)
    sys.stdout.flush()
