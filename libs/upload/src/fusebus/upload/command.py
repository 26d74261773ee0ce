"""What both commands do (`fusebus-upload`, `fusebus upload --sas`): check, send, show progress, tell the outcome."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fusebus.upload.files import LocalFile, files_in, unfit_name
from fusebus.upload.link import LinkRefused, LinkUnfit, read_link
from fusebus.upload.receipt import NAME, Receipt, ReceiptBroken
from fusebus.upload.sending import PARALLEL_FILES, FileOutcome, Sent, send_files

EXIT_ALL = 0
EXIT_SOME = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
MOST_NAMED = 50  # files that are not sent, told one by one; --json and the receipt have all
SHOW_SECONDS = 0.5  # between two lines of progress
MB = 1_000_000


def upload_folder(
    folder: Path,
    link_text: str,
    *,
    prefix: str = "",
    receipt: Path | None = None,
    parallel: int = PARALLEL_FILES,
    as_json: bool = False,
) -> int:
    """Send the folder; the exit code. Progress and errors go to stderr, the result to stdout; the link nowhere."""
    try:
        link = read_link(link_text, datetime.now(UTC))
        files = _files(folder, prefix)
    except (LinkUnfit, _NothingToSend) as error:
        return _complain(str(error), EXIT_USAGE)
    progress = _Progress(files, quiet=as_json)
    try:
        with Receipt(receipt or folder / NAME) as kept:
            done = send_files(
                link, files, kept, parallel=parallel, on_file=progress.file_is_done, on_bytes=progress.bytes_are_sent
            )
    except ReceiptBroken as error:
        return _complain(str(error), EXIT_USAGE)
    except LinkRefused as error:
        return _complain(str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on where it was", EXIT_INTERRUPTED)
    finally:
        progress.end()
    _tell(done, link.container, as_json)
    return EXIT_ALL if all(outcome.is_there for outcome in done) else EXIT_SOME


class _NothingToSend(Exception):
    """The folder can't be read or is empty, or the prefix is none; the text says which."""


def _files(folder: Path, prefix: str) -> list[LocalFile]:
    prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
    if prefix and (unfit := unfit_name(prefix + "x")):
        raise _NothingToSend(f"--prefix {_shown(prefix)}: {unfit}")
    if not folder.is_dir():
        raise _NothingToSend(f"{_shown(str(folder))} is no folder; name the folder that holds the photos")
    try:
        files = files_in(folder, prefix)
    except OSError as error:
        raise _NothingToSend(f"{_shown(str(error.filename or folder))} can't be read: {error.strerror}") from error
    if not files:
        raise _NothingToSend(f"{_shown(str(folder))} holds no files; folders below are read too")
    return files


class _Progress:
    """One line on a terminal, nothing elsewhere; called by many threads."""

    def __init__(self, files: Sequence[LocalFile], quiet: bool) -> None:
        self._total, self._bytes = len(files), sum(file.size for file in files)
        self._done = self._failed = self._sent_bytes = 0
        self._began = self._shown_at = time.monotonic()
        self._show = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()

    def file_is_done(self, outcome: FileOutcome) -> None:
        with self._lock:
            self._done += 1
            self._failed += not outcome.is_there
            self._draw()

    def bytes_are_sent(self, count: int) -> None:
        with self._lock:
            self._sent_bytes += count
            self._draw()

    def end(self) -> None:
        if self._show:
            sys.stderr.write("\r\x1b[K")

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._show or now - self._shown_at < SHOW_SECONDS:
            return
        self._shown_at = now
        rate = self._sent_bytes / max(now - self._began, 0.1) / MB
        failed = f", {self._failed} not sent" if self._failed else ""
        sys.stderr.write(
            f"\r\x1b[K{self._done} of {self._total} files, {self._sent_bytes // MB} of {self._bytes // MB} MB, "
            f"{rate:.1f} MB/s{failed}"
        )
        sys.stderr.flush()


def _tell(done: Sequence[FileOutcome], container: str, as_json: bool) -> None:
    if as_json:
        files = [
            {
                "name": one.file.name,
                "outcome": one.sent.value,
                "stored_as": one.stored_as or one.file.name,
                "sha256": one.sha256,
                "error": one.error,
            }
            for one in done
        ]
        sys.stdout.write(json.dumps({"container": container, "files": files}) + "\n")
        return
    missing = [one for one in done if not one.is_there]
    for one in missing[:MOST_NAMED]:
        sys.stderr.write(f"not sent: {_shown(one.file.name)}: {one.error}" + "\n")
    if len(missing) > MOST_NAMED:
        sys.stderr.write(f"not sent: {len(missing) - MOST_NAMED} more" + "\n")
    renamed = [one for one in done if one.is_there and one.stored_as]
    for one in renamed[:MOST_NAMED]:
        sys.stderr.write(f"sent as {_shown(one.stored_as)}: {_shown(one.file.name)} (its answer was lost)" + "\n")
    counts = Counter(one.sent for one in done)
    sys.stdout.write(
        f"{len(done)} files: " + ", ".join(f"{counts[kind]} {kind.value}" for kind in Sent if counts[kind]) + "\n"
    )


def _shown(name: str) -> str:
    """A name that may hold anything, harmless on a terminal."""
    return ascii(name) if not name.isprintable() else name


def _complain(words: str, code: int) -> int:
    sys.stderr.write(f"fusebus-upload: {words}" + "\n")
    return code
