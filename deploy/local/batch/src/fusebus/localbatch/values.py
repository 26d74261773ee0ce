"""Reads the single values of a request: ids, durations, options; refuses what Batch would refuse."""

from __future__ import annotations

import re

from fusebus.localbatch.entities import BatchProblem, Deallocation

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # Batch's rule for ids of jobs, tasks and pools; safe as a file name
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
UNLIMITED_SECONDS = 10 * 366 * 86400.0  # the service writes "no limit" as the longest duration it knows


def checked_id(value: object) -> str:
    if not isinstance(value, str) or not ID_PATTERN.fullmatch(value):
        raise BatchProblem(400, "InvalidPropertyValue", "An id is 1 to 64 letters, digits, hyphens and underscores.")
    return value


def deallocation(value: str | None) -> Deallocation:
    try:
        return Deallocation((value or "requeue").lower())
    except ValueError as error:
        raise BatchProblem(400, "InvalidPropertyValue", f"nodeDeallocationOption {value} is not supported.") from error


def seconds(duration: str | None) -> float | None:
    """An ISO 8601 duration in seconds; None for none and for the SDK's way of saying none."""
    if not duration:
        return None
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise BatchProblem(400, "InvalidPropertyValue", f"{duration} is not a duration such as PT10M.")
    days, hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = days * 86400 + hours * 3600 + minutes * 60 + rest
    return total if total < UNLIMITED_SECONDS else None


def whole_number(value: object, name: str) -> int:
    """A number that may be missing (0); refuses anything else."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise BatchProblem(400, "InvalidPropertyValue", f"{name} must be a whole number.")
    return value


def check_settings(settings: object, name: str) -> None:
    """Refuses an `environmentSettings` list that `settings_of` could not read when a process is started."""
    entries = [] if settings is None else settings
    named = isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and entry["name"] for entry in entries
    )
    if not named:
        raise BatchProblem(400, "InvalidRequestBody", f"{name} is a list of settings, each with a name.")


def check_output_files(files: object) -> None:
    """Refuses `outputFiles` that is no list of objects."""
    entries = [] if files is None else files
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BatchProblem(400, "InvalidRequestBody", "outputFiles is a list of files.")


def settings_of(settings: object) -> dict[str, str]:
    """The variables of an `environmentSettings` list."""
    found = settings if isinstance(settings, list) else []
    return {str(setting["name"]): str(setting.get("value") or "") for setting in found}
