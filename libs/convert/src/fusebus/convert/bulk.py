"""Converts everything of a source to a destination, over all cores, and can be interrupted and gone on with."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from fusebus.blobs import StorageError, StorageUnavailable
from fusebus.convert.conversion import Target, convert
from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.memory import Bench, needed
from fusebus.convert.names import destination_names, is_hidden, is_picture, printable
from fusebus.convert.places import Destination, Found, LeftAlone, Source
from fusebus.convert.record import Entry, Known

_log = logging.getLogger(__name__)

PNG = Target()
WAITING_FOR_EACH_CORE = 4
"""Threads for each core: while some wait for storage or the disk, the others convert."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a bulk conversion is done."""

    target: Target = PNG
    workers: int = 1
    """Conversions at a time; one for each core."""
    memory_bytes: int = 0
    """For pictures in hand, all together; 0: MEMORY_PER_WORKER_BYTES for each worker."""
    replace: bool = False
    """Overwrite at the destination what this tool did not write."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture."""

    entry: Entry
    skipped: bool = False
    """It was converted before, and neither it nor its result has changed."""
    bytes_in: int = 0


@dataclass(kw_only=True)
class Report:
    """What became of all of them."""

    total: int = 0
    converted: int = 0
    skipped: int = 0
    record: str = ""
    """Where it lies."""
    left_alone: Counter[LeftAlone] = field(default_factory=Counter)
    """What is no picture by its name or its kind."""
    failures: list[Entry] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    """Sources of more than one picture: only the first was taken."""
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        entry = outcome.entry
        if entry.failed:
            self.failures.append(entry)
            return
        self.skipped += outcome.skipped
        self.converted += not outcome.skipped
        self.bytes_in += outcome.bytes_in
        self.bytes_out += 0 if outcome.skipped else entry.destination_bytes
        if entry.frames > 1:
            self.several.append(entry.source)


def convert_all(
    source: Source,
    destination: Destination,
    options: Options,
    stop: threading.Event,
    on_outcome: Callable[[int, Outcome], None] = lambda total, outcome: None,
) -> Report:
    """Convert what is new, changed or missing. `stop` ends it after the pictures in hand; a later call goes on.

    `on_outcome` hears the number of pictures and of each outcome, in this thread. Raises OSError, StorageError or
    RecordBusy where source or record can't be used; what fails with one picture is in the report.
    """
    began = time.monotonic()
    found = source.list()
    alone = {one.name: kind for one in found if (kind := _left_alone(one)) is not None}
    pictures = [one for one in found if one.name not in alone]
    record = destination.record()
    known = record.load()
    names = _names(pictures, known, source.origin, options.target)
    report = Report(total=len(pictures), record=record.place, left_alone=Counter(alone.values()))
    one_by_one = _One(source, destination, options, Bench(options.workers, options.memory_bytes))

    def work(picture: Found) -> Outcome:
        return one_by_one(picture, names[picture.name], known.get((source.origin, picture.name)))

    try:
        for outcome in _in_threads(work, pictures, options.workers * WAITING_FOR_EACH_CORE, stop):
            if not outcome.skipped and outcome.entry != known.get((outcome.entry.origin, outcome.entry.source)):
                record.append(outcome.entry)
            report.add(outcome)
            on_outcome(report.total, outcome)
    finally:
        record.close()
    report.failures.sort(key=lambda entry: entry.source)
    report.several.sort()
    report.interrupted = stop.is_set()
    report.seconds = time.monotonic() - began
    return report


def _left_alone(found: Found) -> LeftAlone | None:
    """Why it is; None: it is a picture by its name, or a folder whose failure is told."""
    if found.left_alone is not None or found.failed or is_picture(found.name):
        return found.left_alone
    return LeftAlone.HIDDEN if is_hidden(found.name) else LeftAlone.OTHER_SUFFIX


def _names(pictures: list[Found], known: Known, origin: str, target: Target) -> dict[str, str | Unconvertible]:
    """What each becomes, or why it can't; what this source's pictures are called already, they stay."""
    recorded = {name: entry.destination for (source, name), entry in known.items() if source == origin}
    files = (one.name for one in pictures if not one.failed)
    names = destination_names(files, f".{target.format.value}", recorded)
    return names | {one.name: Unconvertible(Reason.UNREADABLE, one.failed) for one in pictures if one.failed}


@dataclass(frozen=True)
class _One:
    """Converts one picture; called by many threads."""

    source: Source
    destination: Destination
    options: Options
    bench: Bench

    def __call__(self, picture: Found, name: str | Unconvertible, known: Entry | None) -> Outcome:
        try:
            if isinstance(name, Unconvertible):
                raise name
            return self._done(picture, name, known)
        except Unconvertible as error:
            return self._failed(picture, known, error.reason, error)
        except StorageUnavailable as error:
            return self._failed(picture, known, Reason.UNAVAILABLE, error)
        except (OSError, StorageError) as error:
            return self._failed(picture, known, Reason.UNREADABLE, error)
        except MemoryError as error:
            return self._failed(picture, known, Reason.MEMORY, error)
        except Exception as error:  # whatever it is, the other pictures are sound
            _log.exception("converting %r failed", picture.name)
            return self._failed(picture, known, Reason.INTERNAL, error)

    def _done(self, picture: Found, name: str, known: Entry | None) -> Outcome:
        target = self.options.target
        same = known is not None and not known.failed and (known.target, known.destination) == (target.name, name)
        there = known if same and known is not None and self.destination.holds(known) else None
        if there is not None and picture.etag and there.source_etag == picture.etag:
            return Outcome(entry=there, skipped=True)
        with self.bench.file(picture.size):
            data = self.source.read(picture)
            digest = hashlib.sha256(data).hexdigest()
            if there is not None and there.source_sha256 == digest:
                return Outcome(entry=there, skipped=True, bytes_in=len(data))
            begun = Entry(
                source=picture.name,
                origin=self.source.origin,
                source_sha256=digest,
                source_etag=picture.etag,
                target=target.name,
                destination=name,
                earlier=known.beside(name) if known is not None else {},
            )
            return Outcome(entry=self._converted(begun, data, known), bytes_in=len(data))

    def _converted(self, begun: Entry, data: bytes, known: Entry | None) -> Entry:
        target, name = self.options.target, begun.destination
        with self.bench.pixels(needed(data, target.format)):
            with self.bench.core() as scratch:
                made = convert(data, target, scratch)
                sha256 = hashlib.sha256(made.data).hexdigest()
            return msgspec.structs.replace(
                begun,
                destination_sha256=sha256,
                destination_etag=self._write(name, made.data, known),
                destination_bytes=len(made.data),
                frames=made.frames,
            )

    def _write(self, name: str, data: bytes, known: Entry | None) -> str:
        ours = known.at(name) if known is not None else None
        try:
            return self.destination.write(name, data, ours, replace=self.options.replace)
        except OSError as error:
            raise Unconvertible(Reason.UNWRITABLE, error.strerror or str(error)) from error

    def _failed(self, picture: Found, known: Entry | None, reason: Reason, error: Exception) -> Outcome:
        """An earlier result stays known as ours, so that a later success may take its place."""
        text = printable(getattr(error, "strerror", None) or str(error))
        entry = known or Entry(source=printable(picture.name), origin=self.source.origin)
        return Outcome(entry=msgspec.structs.replace(entry, failed=reason.value, text=text))


def _in_threads(
    work: Callable[[Found], Outcome], pictures: list[Found], threads: int, stop: threading.Event
) -> Iterator[Outcome]:
    """Outcomes as they come. An exception of `work` is raised here; then, and at `stop`, no more are begun."""
    waiting, lock = iter(pictures), threading.Lock()
    outcomes: queue.Queue[Outcome | BaseException | None] = queue.Queue(maxsize=threads)
    ended = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set() and not ended.is_set():
                with lock:
                    picture = next(waiting, None)
                if picture is None:
                    return
                outcomes.put(work(picture))
        except BaseException as error:
            outcomes.put(error)
        finally:
            outcomes.put(None)

    running = [threading.Thread(target=run, name=f"convert-{number}") for number in range(min(threads, len(pictures)))]
    for thread in running:
        thread.start()
    left, failure = len(running), None
    try:
        while left:
            outcome = outcomes.get()
            if outcome is None:
                left -= 1
            elif isinstance(outcome, BaseException):
                failure = failure or outcome
                ended.set()
            else:
                yield outcome
    finally:
        ended.set()
        while left:
            left -= outcomes.get() is None
        for thread in running:
            thread.join()
    if failure is not None:
        raise failure
