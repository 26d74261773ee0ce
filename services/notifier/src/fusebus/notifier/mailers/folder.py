"""Mail into a folder: one .eml file per Message-ID, so that a repeat overwrites instead of doubling."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from fusebus.notifier.mailers import NotSent

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
MOST_CHARACTERS = 120  # of a file name's stem


class FolderMailer:
    """Writes mails as files that any mail program opens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        """Write the mail atomically: whoever watches the folder never sees half of one. Raises NotSent."""
        await asyncio.to_thread(self._write, file_name(message), message.as_bytes(policy=SMTP))

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, half = tempfile.mkstemp(prefix=f".{name}.", dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(half).chmod(0o644)
                Path(half).replace(self._folder / name)
            except BaseException:
                Path(half).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise NotSent(f"{self._folder}: {error.strerror}", passing=True) from error


def file_name(message: EmailMessage) -> str:
    """`<Message-ID's left part>.eml`, safe on every file system. Raises ValueError for a mail without Message-ID."""
    local = str(message["Message-ID"] or "").strip("<> \t").partition("@")[0]
    stem = _UNSAFE.sub("-", local).strip("-.")[:MOST_CHARACTERS]
    if not stem:
        raise ValueError("a mail needs a Message-ID to be filed under")
    return f"{stem}.eml"
