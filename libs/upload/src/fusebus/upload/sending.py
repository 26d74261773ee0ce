"""Sends files several at a time: tries again what may still go, stops at once where the link itself is refused."""

from __future__ import annotations

import http.client
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import BinaryIO

from fusebus.upload.files import MAX_NAME, LocalFile
from fusebus.upload.link import ASK, Link, LinkRefused
from fusebus.upload.receipt import NOT_SENT, SENDING, SENT, UNANSWERED, Entry, Receipt
from fusebus.upload.wire import Answer, Connection, Digest, FileChanged, Interrupted, digest

PARALLEL_FILES = 8
MAX_TRIES = 6  # of one file
FIRST_PAUSE_SECONDS = 1.0  # before the second try; doubled before each further one
LONGEST_PAUSE_SECONDS = 60.0  # storage's own wish (Retry-After) is cut to it too
MAX_FILE_BYTES = 5000 * 2**20  # what storage takes in one request; photos are far below
CONTENT_DIGITS = 16  # of the SHA-256, in a name that is made from it
LONGEST_KIND = 10  # characters behind the last dot of a name that say what it is
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
AFTERWARDS_STATUS = frozenset({500, 504})  # storage may have kept the file all the same
ON_THE_WAY_STATUS = frozenset({502, 503})  # without a code of storage: who knows how far it came
SPOILT_ON_THE_WAY = "Md5Mismatch"
TAKEN_CODES = frozenset({"BlobAlreadyExists", "UnauthorizedBlobOverwrite", "ConditionNotMet"})
UNCLEAR_CODE = "AuthorizationPermissionMismatch"
"""Azurite's for a name that is taken; Azure's for a link that may not create."""
EMULATOR = "Azurite"
REFUSALS = {
    "AuthenticationFailed": f"it was revoked, has expired, or was not copied whole: {ASK}",
    "AuthorizationFailure": f"it was revoked or has expired: {ASK}",
    "AuthorizationProtocolMismatch": "it holds for https only",
    "AuthorizationSourceIPMismatch": "it does not hold for this network",
    "ContainerNotFound": f"its container is gone: {ASK}",
    "AccountIsDisabled": "the account is disabled",
    "ContainerBeingDeleted": f"its container is being deleted: {ASK}",
}


class Sent(StrEnum):
    """What became of one file."""

    SENT = "sent"
    SENT_EARLIER = "sent earlier"
    """By an earlier call, with the same content."""
    NAME_TAKEN = "name taken"
    """There is something of that name which this receipt did not send: nothing was overwritten."""
    CHANGED = "changed since sent"
    """Under this name the file was sent with other content."""
    FAILED = "failed"


@dataclass(frozen=True)
class FileOutcome:
    """One file's outcome; `error` says what to do unless it was sent."""

    file: LocalFile
    sent: Sent
    error: str = ""
    sha256: str = ""
    stored_as: str = ""
    """The name that it has got where that is not its own; empty where it is."""

    @property
    def is_there(self) -> bool:
        """Whether the file's content has arrived."""
        return self.sent in (Sent.SENT, Sent.SENT_EARLIER)


@dataclass
class _Job:
    link: Link
    receipt: Receipt
    on_bytes: Callable[[int], None]
    stop: threading.Event
    waiting: deque[LocalFile]
    done: list[FileOutcome] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    link_worked: bool = False


def send_files(
    link: Link,
    files: Sequence[LocalFile],
    receipt: Receipt,
    *,
    parallel: int = PARALLEL_FILES,
    on_file: Callable[[FileOutcome], None] = lambda _: None,
    on_bytes: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> list[FileOutcome]:
    """Send what the receipt doesn't know as sent; outcomes by name. One file's failure doesn't stop the others.

    The callbacks are called by many threads. Raises LinkRefused, ReceiptBroken; what was sent until then is in the
    receipt. Ctrl-C ends it within a moment: files that are under way are sent anew by the next call.
    """
    job = _Job(link, receipt, on_bytes, stop or threading.Event(), deque(files))
    threads = [threading.Thread(target=_work, args=(job, on_file)) for _ in range(min(parallel, len(files)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        job.stop.set()
        for thread in threads:
            thread.join()
        raise
    if job.errors:
        raise job.errors[0]
    return sorted(job.done, key=lambda outcome: outcome.file.name)


def _work(job: _Job, on_file: Callable[[FileOutcome], None]) -> None:
    with Connection(job.link) as connection:
        while not job.stop.is_set():
            try:
                file = job.waiting.popleft()
            except IndexError:
                return
            try:
                outcome = _send(job, connection, file)
            except Interrupted:
                return
            except BaseException as error:  # the link, the receipt, or a fault of ours: nothing more can go well
                job.errors.append(error)
                job.stop.set()
                return
            job.done.append(outcome)
            on_file(outcome)


def _send(job: _Job, connection: Connection, file: LocalFile) -> FileOutcome:
    if file.unfit:
        return FileOutcome(file, Sent.FAILED, file.unfit)
    error = ""
    for number in range(MAX_TRIES):
        try:
            outcome = _try(job, connection, file)
        except (OSError, http.client.HTTPException, FileChanged) as failure:
            error, wish = _words(failure), ""
        else:
            if isinstance(outcome, FileOutcome):
                return outcome
            error, wish = f"storage answered {outcome.status} {outcome.code}".strip(), outcome.retry_after
        if not file.path.exists():
            return FileOutcome(file, Sent.FAILED, "it is no longer there")
        if number + 1 < MAX_TRIES and job.stop.wait(_pause(number, wish)):
            raise Interrupted
    return FileOutcome(file, Sent.FAILED, f"{error}, {MAX_TRIES} times: call again later, it goes on where it was")


def _try(job: _Job, connection: Connection, file: LocalFile) -> FileOutcome | Answer:
    """The file's outcome, or an answer after which it may be tried again."""
    with file.path.open("rb") as opened:
        known = digest(opened, job.stop)
        if refusal := _needless(job, file, known):
            return refusal
        before, own_name = job.receipt.doubt(job.link.container, file.name, known.sha256), ""
        answer = _create(job, connection, file, opened, known, before)
        if before and _is_taken(job, answer):  # by that try, or by somebody
            own_name = name_of_content(file.name, known.sha256)
            answer = connection.create(own_name, opened, known, job.on_bytes, lambda: None, job.stop)
    return _settled(job, file, known, answer, own_name) or answer


def name_of_content(name: str, sha256: str) -> str:
    """A name in the same folder that nothing but this content has: whoever finds it taken has sent it already.

    For a file whose own name is taken, by itself or by another: after a lost answer a link that can't read can't know.
    """
    folder, slash, last = name.rpartition("/")
    stem, dot, kind = last.rpartition(".")
    if not stem or len(kind) > LONGEST_KIND:
        stem, dot, kind = last, "", ""
    tail = f"~{sha256[:CONTENT_DIGITS]}{dot}{kind}"
    return folder + slash + stem[: MAX_NAME - len(folder + slash + tail)] + tail


def _create(job: _Job, connection: Connection, file: LocalFile, opened: BinaryIO, known: Digest, before: str) -> Answer:
    """One try, of which the receipt knows what it may have left behind, also where this process is killed meanwhile."""
    is_whole = False

    def whole() -> None:
        nonlocal is_whole
        is_whole = True
        _note(job, file, known, UNANSWERED)

    _note(job, file, known, SENDING)
    try:
        answer = connection.create(file.name, opened, known, job.on_bytes, whole, job.stop)
    except (OSError, http.client.HTTPException, FileChanged, Interrupted):
        if not is_whole:  # storage keeps no part of a file
            _forget(job, file, known, before)
        raise
    if answer.status != 201:
        _forget(job, file, known, _doubt_left(answer, is_whole, before))
    return answer


def _forget(job: _Job, file: LocalFile, known: Digest, doubt: str) -> None:
    """This try created nothing, or `doubt` is what is left of it and of earlier ones."""
    _note(job, file, known, NOT_SENT)
    if doubt:
        _note(job, file, known, doubt)


def _doubt_left(answer: Answer, is_whole: bool, before: str) -> str:
    """What is not known after an answer that is no success."""
    if is_whole and answer.status in AFTERWARDS_STATUS:
        return UNANSWERED
    if is_whole and answer.status in ON_THE_WAY_STATUS and not answer.code:
        return before or SENDING
    return before


def _needless(job: _Job, file: LocalFile, known: Digest) -> FileOutcome | None:
    """The outcome of a file that can't or need not be sent."""
    if known.size > MAX_FILE_BYTES:
        return FileOutcome(file, Sent.FAILED, f"it has {known.size:,} bytes, more than any photo", known.sha256)
    sent = job.receipt.sent(job.link.container, file.name)
    if sent is None:
        return None
    if sent.sha256 == known.sha256:
        return FileOutcome(file, Sent.SENT_EARLIER, sha256=known.sha256, stored_as=sent.stored_as)
    told = f"under this name other content was sent on {sent.at[:10]}; nothing is overwritten: rename the file"
    return FileOutcome(file, Sent.CHANGED, told, known.sha256)


def _settled(job: _Job, file: LocalFile, known: Digest, answer: Answer, own_name: str) -> FileOutcome | None:
    """What the answer means for the file; None: try again. Raises LinkRefused.

    `own_name`: the one that was tried after all, if its name is taken and an earlier try may have done that.
    """
    taken = _is_taken(job, answer)
    if answer.status == 201 or (taken and own_name):
        job.link_worked = True
        _note(job, file, known, SENT, answer.etag, own_name)
        return FileOutcome(file, Sent.SENT, sha256=known.sha256, stored_as=own_name)
    if answer.status in PASSING_STATUS or answer.code == SPOILT_ON_THE_WAY:
        return None
    if taken:
        told = "there is a file of this name already, which may be another: rename it, or send with --prefix"
        return FileOutcome(file, Sent.NAME_TAKEN, told, known.sha256)
    if answer.code == UNCLEAR_CODE:
        told = "there is a file of this name already, or the link may not create files: send with --prefix to see"
        return FileOutcome(file, Sent.NAME_TAKEN, told, known.sha256)
    if answer.code in REFUSALS:
        raise LinkRefused(f"storage refuses the link ({answer.code}): {REFUSALS[answer.code]}")
    if answer.status in (401, 403, 407):
        raise LinkRefused(f"the upload is refused ({answer.status} {answer.code or 'by something on the way'}): {ASK}")
    return FileOutcome(file, Sent.FAILED, f"storage answered {answer.status} {answer.code}".strip(), known.sha256)


def _is_taken(job: _Job, answer: Answer) -> bool:
    return name_is_taken(answer.code, answer.server, job.link.may_create_for_sure or job.link_worked)


def name_is_taken(code: str, server: str, may_create_for_sure: bool) -> bool:
    """Whether storage's `code` says that there is a blob of this name; `server` as it calls itself."""
    return code in TAKEN_CODES or (code == UNCLEAR_CODE and (may_create_for_sure or server.startswith(EMULATOR)))


def _note(job: _Job, file: LocalFile, known: Digest, state: str, etag: str = "", stored_as: str = "") -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    job.receipt.note(Entry(job.link.container, file.name, state, known.sha256, known.size, at, etag, stored_as))


def _words(failure: Exception) -> str:
    if isinstance(failure, FileChanged):
        return str(failure)
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror
    if isinstance(failure, http.client.InvalidURL):  # it quotes the link, with its signature
        return "the request could not be made with this link"
    return str(failure) or type(failure).__name__


def _pause(number: int, wish: str) -> float:
    """Seconds before the next try, spread so that many senders don't come back at once."""
    asked = float(wish) if wish.isdecimal() else 0.0
    growing = FIRST_PAUSE_SECONDS * 2.0**number * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, guards nothing
    return min(max(asked, growing), LONGEST_PAUSE_SECONDS)
