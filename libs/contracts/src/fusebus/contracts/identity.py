"""Identifiers that derive from the work, so that a repeat of the same work has the same name everywhere."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

ID_LENGTH = 32  # hexadecimal digits: 128 bits of SHA-256, enough that no two works ever share a name


def digest(*parts: str | bytes) -> str:
    """SHA-256 over length-prefixed parts (no two lists share an encoding): ID_LENGTH hexadecimal digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()[:ID_LENGTH]


def upload_id(container: str, name: str, etag: str) -> str:
    """One blob that arrived: the same name uploaded again has another ETag and is another upload."""
    return digest("upload", container, name, etag.strip('"'))


def image_id(supplier: str, content_sha256: str) -> str:
    """Content of one supplier: two uploads of the same photo are one image. `content_sha256` is hexadecimal."""
    return digest("image", supplier, content_sha256)


def analysis_id(image: str, job_kind: str, model: str) -> str:
    """An image under one job kind and one model, `name@version`; its results are stored under this name."""
    return digest("analysis", image, job_kind, model)


def run_id(supplier: str, opened_at: datetime, first_upload_id: str) -> str:
    """A supplier's delivery, named so that the date of its results can be read from it (see `run_date`)."""
    return f"{opened_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{supplier}-{first_upload_id[:8]}"


@lru_cache(maxsize=1024)  # strptime takes a fifth of what an image's way through a worker may cost
def run_date(run: str) -> str:
    """The run's opening day in UTC as YYYY-MM-DD, read from its id. Raises ValueError for any other text."""
    return datetime.strptime(run.split("-", 1)[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).date().isoformat()
