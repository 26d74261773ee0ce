"""Storage containers as source and destination: the asynchronous client behind calls that a thread can wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from fusebus.blobs import BlobChanged, BlobExists, Blobs, BlobSettings, BlobTooLarge, BlobVanished
from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.places import MOST_BYTES, Found
from fusebus.convert.record import RECORD_SUFFIX, Entry, Known, Record, RecordBusy, entries_of, line_of

FLUSH_SECONDS = 5.0
"""A blob can't grow: the record is written whole, at most so often."""
MOST_RECORD_BYTES = 1 << 30

T = TypeVar("T")


class Storage:
    """One storage account with an event loop in a thread of its own, as a context manager."""

    def __init__(self, settings: BlobSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="storage", daemon=True)
        self.blobs: Blobs

    def __enter__(self) -> Self:
        self._thread.start()
        self.blobs = self.wait_for(Blobs(self._settings).__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait_for(self.blobs.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Container:
    """Blobs below a prefix of a container, as source or destination."""

    def __init__(self, storage: Storage, container: str, prefix: str, content_type: str = "") -> None:
        self._storage = storage
        self._container = container
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._content_type = content_type
        self._there: dict[str, tuple[str, int]] = {}

    @property
    def origin(self) -> str:
        """See Source.origin."""
        return f"container:{self._container}/{self._prefix}"

    def list(self) -> list[Found]:
        """See Source.list."""

        async def found() -> list[Found]:
            listing = self._storage.blobs.list(self._container, self._prefix)
            return [
                Found(name=blob.name.removeprefix(self._prefix), size=blob.size, etag=blob.etag)
                async for blob in listing
            ]

        return self._storage.wait_for(found())

    def read(self, found: Found) -> bytes:
        """See Source.read."""
        name = self._prefix + found.name
        try:
            return self._storage.wait_for(
                self._storage.blobs.read(self._container, name, etag=found.etag, max_bytes=MOST_BYTES)
            )
        except (BlobChanged, BlobVanished) as error:
            raise Unconvertible(Reason.CHANGED, str(error)) from error
        except BlobTooLarge as error:
            raise Unconvertible(Reason.TOO_LARGE, str(error)) from error

    def record(self) -> Record:
        """See Destination.record; makes the container, and learns what is there."""
        self._storage.wait_for(self._storage.blobs.create_container(self._container))
        self._there = {found.name: (found.etag, found.size) for found in self.list()}
        name = self._prefix.rstrip("/") + RECORD_SUFFIX
        return BlobRecord(self._storage, self._container, name)

    def holds(self, entry: Entry) -> bool:
        """See Destination.holds: the ETag pins the content."""
        return self._there.get(entry.destination) == (entry.destination_etag, entry.destination_bytes)

    def write(self, name: str, data: bytes, known: Entry | None, *, replace: bool) -> str:
        """See Destination.write."""
        blobs, wait_for, full = self._storage.blobs, self._storage.wait_for, self._prefix + name
        try:
            return wait_for(blobs.create(self._container, full, data, self._content_type))
        except BlobExists as error:
            etag = known.destination_etag if known is not None else ""
            if replace and (there := wait_for(blobs.properties(self._container, full))) is not None:
                etag = there.etag
            try:
                if etag:
                    return wait_for(blobs.replace(self._container, full, data, self._content_type, etag))
            except BlobChanged:
                pass
            text = f"{self._container}/{full} is there with other content; --replace overwrites it"
            raise Unconvertible(Reason.EXISTS, text) from error


class BlobRecord:
    """The record of a container's prefix: a blob replaced under its ETag, so that a second writer is noticed."""

    def __init__(self, storage: Storage, container: str, name: str) -> None:
        self._storage = storage
        self._place = (container, name)
        self.place = f"container:{container}/{name}"
        self._lines = bytearray()
        self._etag = ""
        self._written = 0
        self._flushed_at = time.monotonic()

    def load(self) -> Known:
        """See Record.load."""
        blobs = self._storage.blobs
        there = self._storage.wait_for(blobs.properties(*self._place))
        if there is not None:
            data = self._storage.wait_for(blobs.read(*self._place, etag=there.etag, max_bytes=MOST_RECORD_BYTES))
            self._etag = there.etag
            self._lines += data if data.endswith(b"\n") or not data else data + b"\n"
            self._written = len(self._lines)
        return entries_of(bytes(self._lines).splitlines())

    def append(self, entry: Entry) -> None:
        """See Record.append."""
        self._lines += line_of(entry)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """See Record.close."""
        if len(self._lines) > self._written:
            blobs, data = self._storage.blobs, bytes(self._lines)
            kind = "application/jsonl"
            try:
                self._etag = self._storage.wait_for(
                    blobs.replace(*self._place, data, kind, self._etag)
                    if self._etag
                    else blobs.create(*self._place, data, kind)
                )
            except (BlobChanged, BlobExists) as error:
                raise RecordBusy(f"another process converts to the same place: it wrote {self._place[1]}") from error
            self._written = len(data)
        self._flushed_at = time.monotonic()
