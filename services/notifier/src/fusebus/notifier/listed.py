"""Sets what a run's manifests list against what arrived: what is missing, where it may be, and what nobody listed."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec

from fusebus.blobs import BlobTooLarge, BlobVanished, layout
from fusebus.ledger import ManifestFacts, RunContents, UploadRow
from fusebus.notifier.ports import ResultStore, RunLedger

_log = logging.getLogger(__name__)

MAX_NAMES_BYTES = 128 * 1024 * 1024
"""Of a stored list; ingest admits 20,000 names of 1,024 characters."""
RUNS_SEARCHED = 20
"""The supplier's newest runs in which a missing file is looked for: a delivery that paused too long is in two runs."""
MOST_LISTED = 20_000
"""Files that the manifests of one run may list together: what is missing is named in every report of it."""
LOST = "manifest_lost"
"""Reason of a manifest whose list we can't read back."""
TOO_MANY = "manifest_too_many"
"""Reason of a manifest with which the run's would list more than MOST_LISTED files."""
_EXPLANATIONS = {
    LOST: "We lost this list; your photos are taken all the same. Please upload it again under another name.",
    TOO_MANY: f"The lists of this delivery name more than {MOST_LISTED:,} files together; your photos are taken all "
    "the same. Please send fewer files at a time.",
}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A list of files that came with a run; `name` is data."""

    upload_id: str
    name: str
    listed: int
    """Files that it names; 0 where it is refused."""
    reason: str = ""
    """Why it is refused; empty where it is taken."""
    explanation: str = ""
    """One sentence for the supplier of a refused one."""


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a manifest lists and the run does not have; names are data."""

    name: str
    manifest: str
    """The name of the list."""
    of_run: str = ""
    """Another run that it came in; empty where it came in none of the last ones."""
    held: bool = False
    """It arrived, and is held (quota, or the supplier is suspended)."""

    @property
    def is_lost(self) -> bool:
        """Whether it has to be uploaded (again)."""
        return not self.of_run and not self.held


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's manifests came to; all empty where there are none."""

    manifests: tuple[Manifest, ...] = ()
    missing: tuple[Missing, ...] = ()
    unlisted: tuple[str, ...] = ()
    """Uploads that no manifest lists, though there is one."""

    @property
    def is_complete(self) -> bool:
        """Whether a manifest was taken, and all that is listed has arrived."""
        return any(not manifest.reason for manifest in self.manifests) and not self.missing


class _Names(msgspec.Struct):
    """Ingest's form of a list."""

    names: tuple[Annotated[str, msgspec.Meta(max_length=1024)], ...]


async def listed_of(contents: RunContents, store: ResultStore) -> Listed:
    """What is listed and not in the run. Raises StorageUnavailable, StorageError."""
    if not contents.manifests:
        return Listed()
    rows = sorted(contents.manifests, key=lambda row: (row.entered_at, row.upload_id))
    lists: dict[str, Sequence[str] | str] = {}
    room = MOST_LISTED
    for row in rows:
        facts = row.manifest or ManifestFacts()
        found = facts.refused or (TOO_MANY if facts.listed > room else await _names(row, facts, store))
        room -= 0 if isinstance(found, str) else len(found)
        lists[row.upload_id] = found
    return compared(rows, lists, contents.uploads)


def compared(
    rows: Sequence[UploadRow], lists: Mapping[str, Sequence[str] | str], uploads: Iterable[UploadRow]
) -> Listed:
    """`lists`: the names of each manifest by its upload id, or why it is refused. One that another lists is there."""
    arrived = {normal(upload.blob_name): upload.blob_name for upload in uploads}
    wanted: dict[str, Missing] = {}
    manifests: list[Manifest] = []
    for row in rows:
        names = lists[row.upload_id]
        reason = names if isinstance(names, str) else ""
        manifests.append(_manifest(row, reason))
        for name in () if reason else names:
            wanted.setdefault(normal(name), Missing(name=name, manifest=row.blob_name))
    any_taken = any(not manifest.reason for manifest in manifests)
    there = arrived.keys() | {normal(row.blob_name) for row in rows}
    return Listed(
        manifests=tuple(manifests),
        missing=tuple(missing for name, missing in wanted.items() if name not in there),
        unlisted=tuple(sorted(shown for name, shown in arrived.items() if name not in wanted)) if any_taken else (),
    )


async def searched(listed: Listed, supplier: str, run_id: str, ledger: RunLedger) -> Listed:
    """The same, with the other runs that missing files came in, and what is held. Raises LedgerUnavailable."""
    if not listed.missing:
        return listed
    held = {normal(one.blob_name) for one in await ledger.held_uploads(supplier)}
    elsewhere: dict[str, str] = {}
    for run in await ledger.runs(supplier, RUNS_SEARCHED):
        if run.run_id == run_id or run.reprocess_of:
            continue
        there = await ledger.contents(run.run_id)
        for upload in (*there.uploads, *there.manifests):
            elsewhere.setdefault(normal(upload.blob_name), run.run_id)
    held -= elsewhere.keys()
    missing = (
        msgspec.structs.replace(one, of_run=elsewhere.get(normal(one.name), ""), held=normal(one.name) in held)
        for one in listed.missing
    )
    return msgspec.structs.replace(listed, missing=tuple(missing))


def normal(name: str) -> str:
    """As ingest compares names: macOS decomposes letters where lists have them whole."""
    return unicodedata.normalize("NFC", name)


def _manifest(row: UploadRow, reason: str) -> Manifest:
    facts = row.manifest or ManifestFacts()
    return Manifest(
        upload_id=row.upload_id,
        name=row.blob_name,
        listed=0 if reason else facts.listed,
        reason=reason,
        explanation=_EXPLANATIONS.get(reason, facts.explanation),
    )


async def _names(row: UploadRow, facts: ManifestFacts, store: ResultStore) -> Sequence[str] | str:
    """What the manifest lists, or why that can't be known."""
    try:
        data = await store.read(layout.RESULTS, facts.names, max_bytes=MAX_NAMES_BYTES)
        if hashlib.sha256(data).hexdigest() == facts.sha256:
            return msgspec.json.decode(data, type=_Names).names
        _log.error("a stored list of files was altered", extra={"upload": row.upload_id, "blob": facts.names})
    except (BlobVanished, BlobTooLarge, msgspec.DecodeError) as error:
        _log.error("a stored list of files can't be read: %s", error, extra={"upload": row.upload_id})
    return LOST
