"""`fusebus supplier`: who may deliver, on which terms, and with which grants."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from fusebus.blobs import Blobs, BlobSettings, GrantUnavailable, StorageError
from fusebus.blobs.layout import supplier_container
from fusebus.console.answers import json_text
from fusebus.console.attribution import short_reason, this_person
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.granting import grant_words
from fusebus.console.moments import ahead
from fusebus.console.scaling import BY_OPTION, JSON_OPTION, REASON_OPTION, with_ledger
from fusebus.console.supplier_words import Shown, left_words, shown_words, terms_words
from fusebus.contracts import timing
from fusebus.contracts.messages import JobKind, Lane
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import ANY_KIND, Grant, Ledger, SupplierRecord, SupplierState

EXIT_LEFT = 3
"""Something is left that this command can't do; it says what."""
LONGEST_GRANT_DAYS = 366
SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

Result = TypeVar("Result")


class StorageOnly(msgspec.Struct, frozen=True, kw_only=True):
    """What grants need of the settings beside the ledger."""

    blobs: BlobSettings


@click.group()
def supplier() -> None:
    """Suppliers: who may deliver, on which terms, and with which grants.

    \b
    Example: fusebus supplier add acme --images-per-day 5000 --email photos@acme.example
             fusebus supplier grant acme --for 30d
    """


def terms(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `add` and `set` share."""
    for option in reversed(
        [
            click.option(
                "--job-kind", type=click.Choice([kind.value for kind in JobKind]), help="Instead of ingest's."
            ),
            click.option("--lane", type=click.Choice([lane.value for lane in Lane]), help="Instead of ingest's."),
            click.option("--deadline", metavar="SPAN", help="From arrival to done: 90m, 6h, 2d. Instead of ingest's."),
            click.option("--email", help="Where the supplier is told what was held and why."),
            click.option(
                "--when",
                multiple=True,
                metavar="TIMING",
                help="When photos are processed: at-once, windows, 'windows 02:00,14:00 Europe/London', "
                "'off-peak 22:00-06:00 Europe/London', on-command; of one job kind: 'convert=off-peak'. "
                "Instead of ingest's.",
            ),
            click.option("--images-per-day", type=click.IntRange(min=1), help="Uploads taken each UTC day."),
            click.option("--bytes-per-day", metavar="SIZE", help="Bytes taken each UTC day: 500MB, 20GB."),
        ]
    ):
        command = option(command)
    return command


@supplier.command()
@click.argument("name")
@terms
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def add(name: str, author: str | None, as_json: bool, settings_file: Path | None, **given: Any) -> None:
    """Add supplier NAME and make its container; what is left out follows ingest's settings, without a limit.

    \b
    Example: fusebus supplier add acme --lane urgent --deadline 2h --images-per-day 5000 --bytes-per-day 20GB
    Exit codes: 0 added (the same again too), 1 ledger or storage could not be reached, 2 usage (name taken too).
    """
    container = _container(name)
    now = datetime.now(UTC)
    by = author or this_person()
    record = SupplierRecord(name=name, added_at=now, changed_at=now, changed_by=by, **_terms(given, now))

    async def work(ledger: Ledger, blobs: Blobs) -> None:
        await blobs.create_container(container)
        if not await ledger.add_supplier(record):
            there = await _known(ledger, name)
            if _what_counts(there) == _what_counts(record):
                return
            hint = "resume takes it back" if there.state is SupplierState.REMOVED else "set changes it"
            raise click.UsageError(f"there is a supplier {name} already ({there.state.value}): fusebus supplier {hint}")

    _with_both(settings_file, work)
    _tell(
        as_json, record, [f"{name} is a supplier; its container is {container}", f"next: fusebus supplier grant {name}"]
    )


@supplier.command("set")
@click.argument("name")
@terms
@click.option("--unset", multiple=True, metavar="TERM", help="Follow ingest's setting again: lane, images-per-day, …")
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def set_terms(
    name: str, unset: tuple[str, ...], author: str | None, as_json: bool, settings_file: Path | None, **given: Any
) -> None:
    """Change NAME's terms; uploads that are held are looked at anew.

    \b
    Example: fusebus supplier set acme --images-per-day 20000
             fusebus supplier set acme --when 'windows 02:00,14:00 Europe/London' --when convert=off-peak
             fusebus supplier set acme --unset images-per-day
    Exit codes: 0 changed, 1 the ledger could not be reached, 2 usage (an unknown supplier too).
    """
    now = datetime.now(UTC)
    changes = {key: value for key, value in _terms(given, now).items() if value is not None}
    empty: dict[str, Any] = {
        "job-kind": {"job_kind": None},
        "lane": {"lane": None},
        "deadline": {"deadline_seconds": None},
        "email": {"email": ""},
        "when": {"when": {}},
        "images-per-day": {"images_per_day": None},
        "bytes-per-day": {"bytes_per_day": None},
    }
    for term in unset:
        if term not in empty:
            raise click.UsageError(f"--unset {term!r} is none of {', '.join(empty)}")
        changes |= empty[term]
    if not changes:
        raise click.UsageError("nothing to change: give a term, or --unset one")
    record = _change(settings_file, name, author, changes)
    _tell(as_json, record, [f"{name}: {terms_words(record)}"])


@supplier.command("list")
@JSON_OPTION
@SETTINGS_OPTION
def list_suppliers(as_json: bool, settings_file: Path | None) -> None:
    """List all suppliers with state and terms.

    \b
    Example: fusebus supplier list --json | jq '.[] | select(.state == "suspended").name'
    Exit codes: 0 shown, 1 the ledger could not be reached, 2 usage.
    """
    found = with_ledger(settings_file, lambda ledger: ledger.suppliers())
    words = [f"{one.name:24} {one.state.value:10} {terms_words(one)}" for one in found]
    _tell(as_json, found, words or ["no suppliers yet: fusebus supplier add NAME"])


@supplier.command()
@click.argument("name")
@JSON_OPTION
@SETTINGS_OPTION
def show(name: str, as_json: bool, settings_file: Path | None) -> None:
    """Show NAME's state, terms, use of today's quota, grants (never their tokens) and held uploads.

    \b
    Example: fusebus supplier show acme
    Exit codes: 0 shown, 1 the ledger could not be reached, 2 usage (an unknown supplier too).
    """
    now = datetime.now(UTC)

    async def read(ledger: Ledger) -> Shown:
        return Shown(
            supplier=await _known(ledger, name),
            today=await ledger.usage(name, now),
            grants=await ledger.grants(name),
            held=await ledger.held_uploads(name),
        )

    shown = with_ledger(settings_file, read)
    _tell(as_json, shown, shown_words(shown, now))


@supplier.command()
@click.argument("name")
@REASON_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def suspend(name: str, reason: str, author: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Hold NAME's uploads from now on: they stay in storage, unprocessed, until `resume`. Grants go on.

    \b
    Example: fusebus supplier suspend acme --reason "sends screenshots"
    Exit codes: 0 suspended, 1 the ledger could not be reached, 2 usage (an unknown supplier too).
    """
    changes = {"state": SupplierState.SUSPENDED, "reason": short_reason(reason)}
    record = _change(settings_file, name, author, changes)
    _tell(as_json, record, [f"{name} is suspended: what comes is held until fusebus supplier resume {name}"])


@supplier.command()
@click.argument("name")
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def resume(name: str, author: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Take NAME's uploads again, held ones too (the sweep finds them). A removed supplier comes back without grants.

    \b
    Example: fusebus supplier resume acme
    Exit codes: 0 active, 1 the ledger could not be reached, 2 usage (an unknown supplier too).
    """
    record = _change(settings_file, name, author, {"state": SupplierState.ACTIVE, "reason": ""})
    _tell(as_json, record, [f"{name} is active; what was held is taken within a quarter of an hour"])


@supplier.command()
@click.argument("name")
@REASON_OPTION
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def remove(name: str, reason: str, author: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Revoke all of NAME's grants and take nothing more from it. Photos, results and the record stay.

    \b
    Example: fusebus supplier remove acme --reason "contract ended"
    Exit codes: 0 removed, 1 ledger or storage could not be reached, 2 usage, 3 a grant could not be taken back.
    """
    changes = {"state": SupplierState.REMOVED, "reason": short_reason(reason)}
    record = _change(settings_file, name, author, changes)  # first: what still arrives is held
    left = _revoke(settings_file, name, None)
    words = [f"{name} is removed: its grants are revoked, what still comes is held"]
    _tell(as_json, {"supplier": record, "not_revoked": left}, words + left_words(left))
    sys.exit(EXIT_LEFT if left else 0)


@supplier.command()
@click.argument("name")
@click.option("--for", "span", default="30d", show_default=True, metavar="SPAN", help="How long it holds: 12h, 30d.")
@BY_OPTION
@JSON_OPTION
@SETTINGS_OPTION
def grant(name: str, span: str, author: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Print, once, a link with which NAME can create files in its container, and one that reads its receipts.

    It is kept nowhere: who loses it gets another. With a managed identity storage signs for 7 days at most, and such
    a grant can't be taken back alone; where the account key signs, `revoke` works at once.

    \b
    Example: fusebus supplier grant acme --for 30d
    Exit codes: 0 granted, 1 ledger or storage could not be reached or refused, 2 usage.
    """
    now = datetime.now(UTC)
    until = _span_end(span, now, "--for")
    if (until - now).days > LONGEST_GRANT_DAYS:
        raise click.UsageError(f"--for {span} is longer than {LONGEST_GRANT_DAYS} days")
    grant_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"

    async def work(ledger: Ledger, blobs: Blobs) -> tuple[Grant, str, str]:
        record = await _known(ledger, name)
        if record.state is not SupplierState.ACTIVE:
            raise click.UsageError(f"{name} is {record.state.value}: fusebus supplier resume {name} comes first")
        try:
            reads = await blobs.receipt_grant(name, grant_id, until)  # the harmless one first
            made = await blobs.supplier_grant(name, grant_id, until)
            noted = Grant(
                grant_id=grant_id,
                supplier=name,
                made_at=now,
                made_by=author or this_person(),
                expires_at=made.expires_at,
                revocable=made.revocable,
            )
            await ledger.note_grant(noted)
        except BaseException:  # nobody has its links, and no row names it: it must not take one of the few places
            with suppress(StorageError):
                await blobs.revoke_grants(name, {grant_id})
            raise
        return noted, made.url, reads.url

    noted, url, receipts = _with_both(settings_file, work)
    _tell(as_json, {"grant": noted, "url": url, "receipts_url": receipts}, grant_words(noted, url, receipts))


@supplier.command()
@click.argument("name")
@click.option("--grant", "grant_id", help="Only this one (its id is in `show`); default: all.")
@JSON_OPTION
@SETTINGS_OPTION
def revoke(name: str, grant_id: str | None, as_json: bool, settings_file: Path | None) -> None:
    """Take back NAME's grants: uploads with them are refused from now on (in Azure within 30 seconds).

    \b
    Example: fusebus supplier revoke acme
    Exit codes: 0 revoked or nothing to revoke, 1 ledger or storage could not be reached, 2 usage,
                3 a grant of a managed identity is left: it says how to end it.
    """
    left = _revoke(settings_file, name, grant_id)
    words = [
        f"{name}: {'all grants that can be are' if left else 'grant is' if grant_id else 'all grants are'} revoked"
    ]
    _tell(as_json, {"supplier": name, "not_revoked": left}, words + left_words(left))
    sys.exit(EXIT_LEFT if left else 0)


def _revoke(settings_file: Path | None, name: str, grant_id: str | None) -> list[Grant]:
    """Revoke one grant or all; those that storage can't take back alone and that live on."""
    now = datetime.now(UTC)

    async def work(ledger: Ledger, blobs: Blobs) -> list[Grant]:
        await _known(ledger, name)
        known = await ledger.grants(name)
        if grant_id is not None and grant_id not in {one.grant_id for one in known}:
            raise click.UsageError(f"{name} has no grant {grant_id!r}; its grants: fusebus supplier show {name}")
        meant = [one for one in known if grant_id in (None, one.grant_id)]
        # The expired and the revoked ones again too: a repeat after a lost answer costs nothing.
        await blobs.revoke_grants(name, {one.grant_id for one in meant if one.revocable} if grant_id else None)
        for one in meant:
            if one.revocable and one.revoked_at is None:
                await ledger.note_grant(msgspec.structs.replace(one, revoked_at=now))
        return [one for one in meant if not one.revocable and one.expires_at > now]

    return _with_both(settings_file, work)


def _change(settings_file: Path | None, name: str, author: str | None, changes: dict[str, Any]) -> SupplierRecord:
    async def work(ledger: Ledger) -> SupplierRecord:
        await _known(ledger, name)
        changed = await ledger.change_supplier(name, datetime.now(UTC), author or this_person(), **changes)
        assert changed is not None, "records are never deleted"
        return changed

    return with_ledger(settings_file, work)


def _with_both(settings_file: Path | None, work: Callable[[Ledger, Blobs], Awaitable[Result]]) -> Result:
    """As with_ledger, with storage too."""
    settings = load_settings(StorageOnly, "console", environment_for_people(settings_file))

    async def run(ledger: Ledger) -> Result:
        async with Blobs(settings.blobs) as blobs:
            return await work(ledger, blobs)

    try:
        return with_ledger(settings_file, run)
    except GrantUnavailable as error:
        raise click.ClickException(str(error)) from error
    except StorageError as error:
        raise click.ClickException(f"storage can't be reached: {error}; is the stack up (fusebus up)?") from error


async def _known(ledger: Ledger, name: str) -> SupplierRecord:
    _container(name)
    record = await ledger.supplier(name)
    if record is None:
        known = ", ".join([one.name for one in await ledger.suppliers()]) or "none"
        raise click.UsageError(f"there is no supplier {name!r}; known are {known}")
    return record


def _container(name: str) -> str:
    try:
        return supplier_container(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _terms(given: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The record's fields that the options give; None where one is missing."""
    email = given["email"]
    if email is not None and not re.fullmatch(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}", email):
        raise click.UsageError(f"--email {email!r} is no e-mail address")
    deadline = given["deadline"]
    return {
        "job_kind": JobKind(given["job_kind"]) if given["job_kind"] else None,
        "lane": Lane(given["lane"]) if given["lane"] else None,
        "deadline_seconds": (_span_end(deadline, now, "--deadline") - now).total_seconds() if deadline else None,
        **({"email": email} if email else {}),
        **({"when": timings(given["when"])} if given["when"] else {}),
        "images_per_day": given["images_per_day"],
        "bytes_per_day": _size(given["bytes_per_day"]) if given["bytes_per_day"] else None,
    }


def timings(texts: Sequence[str]) -> dict[str, str]:
    """By job kind, or `any`, what `--when` says. Raises click.UsageError."""
    found = {}
    for text in texts:
        kind, given, said = text.partition("=")
        kind, said = (kind.strip(), said) if given else (ANY_KIND, text)
        if kind not in {ANY_KIND, *JobKind}:
            raise click.UsageError(f"--when {text!r}: {kind!r} is none of {ANY_KIND}, {', '.join(JobKind)}")
        try:
            timing.parse(said)
        except ValueError as error:
            raise click.UsageError(f"--when: {error}") from error
        found[kind] = " ".join(said.split())
    return found


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})\s*([KMGT]?B)?", text.strip().upper())
    if not found or not int(found[1]):
        raise click.UsageError(f"--bytes-per-day {text!r} is no size: write 500MB or 20GB")
    return int(found[1]) * SIZES[(found[2] or "B")]


def _span_end(text: str, now: datetime, option: str) -> datetime:
    try:
        until = ahead(text, now)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{option}: {text!r} is no span of time: write 90m, 12h or 30d") from error
    if until <= now:
        raise click.UsageError(f"{option} {text} is over already")
    return until


def _what_counts(record: SupplierRecord) -> SupplierRecord:
    """The record without who and when."""
    then = datetime(2000, 1, 1, tzinfo=UTC)
    return msgspec.structs.replace(record, added_at=then, changed_at=then, changed_by="", version="")


def _tell(as_json: bool, found: object, words: list[str]) -> None:
    click.echo(json_text(found) if as_json else "\n".join(words))
