"""One connection to storage and the one request that is ever made: create this blob, if there is none."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ssl
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Self
from urllib.parse import urlsplit

from fusebus.upload.link import Link

SILENCE_SECONDS = 60.0
"""Of a connection, after which the try counts as failed."""
PART_BYTES = 256 * 1024  # read, digested and sent at a time


class Interrupted(Exception):
    """Somebody asked to stop."""


class FileChanged(Exception):
    """The file is not what it was when it was digested."""


@dataclass(frozen=True)
class Digest:
    """Of a file's content."""

    sha256: str
    """Hexadecimal."""
    md5: str
    """Base64, as storage checks it against what arrives."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Answer:
    """What storage said."""

    status: int
    code: str
    """Storage's own; empty where the answer came from something else on the way."""
    etag: str
    retry_after: str
    server: str
    """As it calls itself."""


def digest(file: BinaryIO, stop: threading.Event) -> Digest:
    """Read the open file once, from its start. Raises Interrupted, OSError."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    while part := file.read(PART_BYTES):
        if stop.is_set():
            raise Interrupted
        sha256.update(part)
        md5.update(part)
        size += len(part)
    return Digest(sha256.hexdigest(), base64.b64encode(md5.digest()).decode(), size)


class Connection:
    """One thread's connection, kept for many files; a failed one is opened anew."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def create(
        self,
        name: str,
        file: BinaryIO,
        known: Digest,
        on_bytes: Callable[[int], None],
        on_whole: Callable[[], None],
        stop: threading.Event,
    ) -> Answer:
        """Send the open file from its start; storage takes all of it with this digest, or nothing.

        `on_whole` is called once its last byte has gone: only from then on can storage have it.
        Raises OSError and http.client.HTTPException where there is no answer, FileChanged, Interrupted.
        """
        headers = {
            "Content-Length": str(known.size),
            "Content-Type": "application/octet-stream",  # nobody believes what a sender claims
            "Content-MD5": known.md5,
            "If-None-Match": "*",
            "x-ms-blob-type": "BlockBlob",
        }
        file.seek(0)
        connection = self._connection()
        try:
            # It may have refused before it had read all, and said why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                body = _Body(file, known.size, on_bytes, on_whole, stop)
                connection.request("PUT", self._link.target(name), body=body, headers=headers)
            response = connection.getresponse()
            response.read()
        except BaseException:
            self.close()
            raise
        if response.will_close or response.status >= 400:
            self.close()  # what was refused may not have been read to its end
        return Answer(
            response.status,
            response.getheader("x-ms-error-code", ""),
            response.getheader("ETag", "").strip('"'),
            response.getheader("Retry-After", ""),
            response.getheader("Server", ""),
        )

    def _connection(self) -> http.client.HTTPConnection:
        if self._open is None:
            self._open = _connect(self._link)
        return self._open


class _Body:
    """Exactly the bytes that were announced: a file that grows or shrinks must not spoil the connection."""

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        on_bytes: Callable[[int], None],
        on_whole: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._file, self._left, self._stop = file, size, stop
        self._on_bytes, self._on_whole = on_bytes, on_whole

    def read(self, size: int = -1) -> bytes:
        if not self._left:  # asked once more after the last part has gone
            self._on_whole()
        if self._stop.is_set():
            raise Interrupted
        part = self._file.read(min(PART_BYTES, self._left))
        if not part and self._left:
            raise FileChanged("it became shorter while it was sent")
        self._left -= len(part)
        self._on_bytes(len(part))
        return part


def _connect(link: Link) -> http.client.HTTPConnection:
    """Directly, or through the proxy that this machine's settings name. Nothing is sent yet."""
    proxy = urllib.request.getproxies().get("https") if link.scheme == "https" else None  # http is this machine's
    through = urlsplit(proxy) if proxy and not urllib.request.proxy_bypass(link.host) else None
    host, port = (through.hostname or "", through.port) if through else (link.host, link.port)
    connection: http.client.HTTPConnection
    if link.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=SILENCE_SECONDS, context=ssl.create_default_context(), blocksize=PART_BYTES
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SILENCE_SECONDS, blocksize=PART_BYTES)
    if through:
        connection.set_tunnel(
            link.host,
            link.port or (443 if link.scheme == "https" else 80),
            _proxy_headers(through.username, through.password),
        )
    return connection


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    return {"Proxy-Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}
