"""Lists a container, and around what its listing can't show: where storage fails at a name, by prefixes.

Storage that can't write a name down (Azurite, a control character in it) answers 500 to every listing that would have
to. Such a name hides all others of its page; listings by prefix find those again, but for the neighbours that begin
like it.
"""

from __future__ import annotations

import string
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from fusebus.blobs import BlobProperties, ListedBlob, StorageError

MOST_LISTINGS = 3000
"""Of one container in one round; a listing takes some milliseconds."""
CANNOT_SAY = 500  # the status of storage that is there, and fails at what it should say
_FIRST = {*string.ascii_letters, *string.digits, *string.punctuation, " ", *map(chr, range(0xC0, 0x100))}
"""What is tried at first, ASCII and the letters of Latin-1; then also what the names hold that are found."""


class Lists(Protocol):
    """What is asked of storage."""

    def list(self, container: str, prefix: str = "", *, retry: bool = True) -> AsyncIterator[ListedBlob]: ...

    async def properties(self, container: str, name: str) -> BlobProperties | None: ...


@dataclass
class Listing:
    """One container's blobs; afterwards, what could not be seen."""

    blobs: Lists
    container: str
    hidden: list[str] = field(default_factory=list)
    """Beginnings of names that may be there, unseen, as may what has characters that were not tried."""
    why: str = ""
    """What storage said where the listing failed; empty where it did not."""

    async def __aiter__(self) -> AsyncIterator[ListedBlob]:
        """Every blob that can be seen, perhaps twice. Raises StorageError where storage does not answer at all."""
        try:
            async for blob in self.blobs.list(self.container):
                yield blob
        except StorageError as error:
            if error.status != CANNOT_SAY:
                raise
            self.why = str(error)
        if self.why:
            async for blob in self._around():
                yield blob

    async def _around(self) -> AsyncIterator[ListedBlob]:
        """Every prefix whose listing fails is split by its next character."""
        characters, left = set(_FIRST), MOST_LISTINGS
        failed = deque([""])
        while failed:
            prefix, splits = failed.popleft(), False
            if prefix and (itself := await self.blobs.properties(self.container, prefix)):
                yield itself
            for character in sorted(characters):
                if not left:
                    self.hidden += [prefix, *failed]
                    return
                left -= 1
                try:
                    async for blob in self.blobs.list(self.container, prefix + character, retry=False):
                        characters.update(blob.name)
                        yield blob
                except StorageError as error:
                    if error.status != CANNOT_SAY:
                        raise
                    failed.append(prefix + character)
                    splits = True
            if not splits:
                self.hidden.append(prefix)
