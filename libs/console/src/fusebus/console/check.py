"""`fusebus check`: the verdict that ingest would give, on this machine, without a stack or a network."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from fusebus.contracts import display
from fusebus.contracts.messages import RejectReason
from fusebus.validation import Validator, ValidatorUnavailable, Verdict, explanation
from fusebus.validation.limits import MAX_BYTES
from fusebus.vision import MAX_PIXELS

EXIT_REJECTED = 3
EXIT_NO_VERDICT = 4
MOST_SERVERS = 8
UNREADABLE = "unreadable"
NO_VERDICT = "no_verdict"
NO_VERDICT_EXPLANATION = "The file could not be judged on this machine; please try again."
UNREADABLE_EXPLANATION = "The file can't be read; please check that it is there and is an ordinary file."


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each file.")
@click.option(
    "--derivative",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each accepted picture there, rebuilt from its pixels, upright, without metadata: SHA-256.jpg.",
)
@click.option("--heif", is_flag=True, help="Accept HEIC and HEIF too, as ingest does with FUSEBUS_INGEST_HEIF=true.")
def check(files: tuple[str, ...], as_json: bool, folder: Path | None, heif: bool) -> None:
    """Say of each FILE whether ingest would accept it, and why not.

    Each file is read in a process of its own that has no network, no files and little memory.

    \b
    Example: fusebus check photos/*.jpg --json | jq -r 'select(.verdict == "reject") | .reason'
    Exit codes: 0 all accepted, 3 some rejected, 4 some could not be judged, 2 usage.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.UsageError(f"--derivative: {error.strerror}") from error
    sys.exit(asyncio.run(_check(files, as_json, folder, heif)))


async def _check(files: Sequence[str], as_json: bool, folder: Path | None, heif: bool) -> int:
    """The exit code."""
    console, code = Console(highlight=False, soft_wrap=True), 0
    async for found in judged(files, folder, heif=heif):
        code = max(code, {"accept": 0, "reject": EXIT_REJECTED}.get(found["verdict"], EXIT_NO_VERDICT))
        if as_json:
            click.echo(json.dumps(found))  # ASCII only: no name can move a cursor or turn a line round
        else:
            console.print(_line(found))
    return code


async def judged(files: Sequence[str], folder: Path | None, *, heif: bool) -> AsyncIterator[dict[str, Any]]:
    """What `--json` prints of each file, in their order."""
    servers = min(os.cpu_count() or 1, len(files), MOST_SERVERS)
    places = asyncio.Semaphore(servers)
    async with Validator(servers, heif=heif) as validator:

        async def one(file: str) -> dict[str, Any]:
            async with places:
                return await _judge(file, folder, validator)

        waiting = [asyncio.create_task(one(file)) for file in files]
        try:
            for task in waiting:
                yield await task
        finally:
            for task in waiting:
                task.cancel()


async def _judge(file: str, folder: Path | None, validator: Validator) -> dict[str, Any]:
    try:
        data = await asyncio.to_thread(read_file, file, MAX_BYTES)
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        return _said(file, "reject", UNREADABLE, UNREADABLE_EXPLANATION, detail)
    if len(data) > MAX_BYTES:
        return _rejected(file, Verdict(reason=RejectReason.TOO_LARGE, detail=f"more than {MAX_BYTES} bytes"))
    try:
        verdict = await validator.check(data, derivative=folder is not None)
    except ValidatorUnavailable as error:  # it says nothing of this file, and the others have their own
        return _said(file, None, NO_VERDICT, NO_VERDICT_EXPLANATION, str(error))
    if verdict.facts is None:
        return _rejected(file, verdict)
    sha256 = hashlib.sha256(data).hexdigest()
    rebuilt = folder / f"{sha256}.jpg" if folder is not None else None
    if rebuilt is not None:
        await asyncio.to_thread(rebuilt.write_bytes, verdict.derivative)
    facts = verdict.facts
    return _said(file, "accept", None, "", "", verdict) | {
        "format": facts.format,
        "width": facts.width,
        "height": facts.height,
        "orientation": facts.orientation,
        "captured_at": facts.captured_at,
        "camera": facts.camera,
        "quality": [note.value for note in facts.quality],
        "sha256": sha256,
        "derivative": str(rebuilt) if rebuilt is not None else None,
    }


def read_file(file: str, max_bytes: int) -> bytes:
    """An ordinary file's bytes, at most one more than `max_bytes`. Raises OSError for anything else, pipes included."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no ordinary file")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(max_bytes + 1)
    finally:
        os.close(descriptor)


def _rejected(file: str, verdict: Verdict) -> dict[str, Any]:
    assert verdict.reason is not None, "what is not accepted has a reason"
    sentence = explanation(verdict.reason, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    return _said(file, "reject", verdict.reason.value, sentence, verdict.detail, verdict)


def _said(
    file: str, word: str | None, reason: str | None, sentence: str, detail: str, verdict: Verdict | None = None
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "file": file,
        "verdict": word,
        "reason": reason,
        "explanation": sentence,
        "detail": detail,
    }
    if verdict is not None:
        said["cpu_seconds"] = round(verdict.cost.cpu_seconds, 3)
        said["peak_megabytes"] = round(verdict.cost.peak_bytes / 1e6)
    return said


def _line(found: dict[str, Any]) -> Text:
    """For people: the verdict, the name fit to be shown, then the facts or the sentence."""
    accepted = found["verdict"] == "accept"
    line = Text(found["verdict"] or "no verdict", style="green" if accepted else "red")
    line.append(f"  {display.name(found['file'])}  ", style="bold")
    if accepted:
        notes = f"; note: {', '.join(found['quality']).replace('_', ' ')}" if found["quality"] else ""
        return line.append(f"{found['format']}, {found['width']} x {found['height']}{notes}", style="not bold")
    return line.append(f"{found['explanation']} ({found['reason']}: {display.one_line(found['detail'], 200)})")
