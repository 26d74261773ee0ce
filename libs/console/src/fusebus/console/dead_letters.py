"""`fusebus dead-letters`: what was given up and why, put back or removed on people's word."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

import click
import msgspec

from fusebus.bus import Bus, BusError, BusSettings, DeadLetter, Dealt
from fusebus.console.answers import json_text
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.contracts.display import one_line
from fusebus.contracts.topology import TOPICS
from fusebus.host import environment_for_people, load_settings

EXIT_LEFT = 3
QUEUES = tuple(f"{topic.name}/{subscription.name}" for topic in TOPICS for subscription in topic.subscriptions)


class DeadLetterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What this command needs of the settings."""

    bus: BusSettings


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter."""

    queue: str
    message_id: str
    enqueued_at: datetime | None
    reason: str
    description: str
    run: str
    upload: str
    can_be_put_back: bool


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    dead_letters: list[Shown]
    put_back: int = 0
    removed: int = 0
    left: int = 0


@click.command("dead-letters")
@click.option("--queue", type=click.Choice(QUEUES), metavar="TOPIC/SUBSCRIPTION", help="Only this one; default: all.")
@click.option("--id", "ids", multiple=True, metavar="MESSAGE_ID", help="Only this message; may be said again.")
@click.option("--put-back", is_flag=True, help="Send them to their topic again, then remove them here.")
@click.option("--remove", is_flag=True, help="Remove them for good.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
@SETTINGS_OPTION
def dead_letters(
    queue: str | None, ids: tuple[str, ...], put_back: bool, remove: bool, as_json: bool, settings_file: Path | None
) -> None:
    """Show every message that was given up, with its reason; --put-back and --remove deal with those shown.

    What was given up has a final already where an upload can be told: putting it back changes no final. For a run whose
    photos failed there is fusebus reprocess.

    \b
    Example: fusebus dead-letters
             fusebus dead-letters --queue uploads/ingest --put-back
    Exit codes: 0 shown or dealt with, 1 the bus could not be reached, 2 usage, 3 some stay: nobody can decode them.
    """
    if put_back and remove:
        raise click.UsageError("--put-back or --remove, not both")
    settings = load_settings(DeadLetterSettings, "console", environment_for_people(settings_file))
    try:
        told = asyncio.run(_run(settings, (queue,) if queue else QUEUES, ids, put_back, remove))
    except BusError as error:
        raise click.ClickException(f"the bus can't be reached: {error}; is the stack up (fusebus up)?") from error
    click.echo(json_text(told)) if as_json else _say(told, put_back or remove)
    sys.exit(EXIT_LEFT if told.left else 0)


async def _run(
    settings: DeadLetterSettings, queues: tuple[str, ...], ids: tuple[str, ...], put_back: bool, remove: bool
) -> Told:
    async with Bus(settings.bus) as bus:
        each = await asyncio.gather(*(_all(bus, queue) for queue in queues))
        found = [one for shown in each for one in shown if not ids or one.message_id in ids]
        if not (put_back or remove):
            return Told(dead_letters=found)
        dealt = []
        for queue in sorted({one.queue for one in found}):
            topic, _, subscription = queue.partition("/")
            dealt.append(await bus.deal_with_dead_letters(topic, subscription, ids, put_back=put_back))
        total = Dealt(done=sum(one.done for one in dealt), left=sum(one.left for one in dealt))
        done = {"put_back": total.done} if put_back else {"removed": total.done}
        return Told(dead_letters=found, left=total.left, **done)


async def _all(bus: Bus, queue: str) -> list[Shown]:
    topic, _, subscription = queue.partition("/")
    found: list[Shown] = []
    depth = await bus.depth(topic, subscription)
    if depth is not None and depth.dead_letter == 0:
        return found  # a link of its own would take a second
    after = 0
    while page := await bus.peek_dead_letters(topic, subscription, after):
        found += [_shown(queue, dead) for dead in page]
        after = page[-1].sequence
    return found


def _shown(queue: str, dead: DeadLetter) -> Shown:
    def text(name: str) -> str:
        value = dead.properties.get(name)
        return one_line(value) if isinstance(value, str) else ""

    return Shown(
        queue=queue,
        message_id=dead.message_id,
        enqueued_at=dead.enqueued_at,
        reason=one_line(dead.reason),
        description=one_line(dead.description),
        run=text("run"),
        upload=text("upload"),
        can_be_put_back=dead.envelope is not None,
    )


def _say(told: Told, dealt: bool) -> None:
    for one in told.dead_letters:
        when = f"{one.enqueued_at:%Y-%m-%d %H:%M:%S}" if one.enqueued_at else "?"
        click.echo(f"{one.queue}  {when} UTC  {one_line(one.message_id)}")
        of = " ".join(f"{name} {value}" for name, value in (("run", one.run), ("upload", one.upload)) if value)
        click.echo(f"  {one.reason or 'no reason'}: {one.description}{f'  [{of}]' if of else ''}")
    if dealt:
        click.echo(f"{told.put_back:,} put back, {told.removed:,} removed, {told.left:,} left: nobody can decode them")
    else:
        click.echo(f"{(count := len(told.dead_letters)):,} dead letter{'' if count == 1 else 's'}")
