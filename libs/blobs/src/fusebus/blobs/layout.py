"""Where everything lies: names of containers and blobs, derived from the work, so that a repeat finds its place."""

from __future__ import annotations

import re

from fusebus.contracts.identity import run_date
from fusebus.contracts.messages import SUPPLIER_CONTAINER_PREFIX

RESULTS = "results"
"""The one container of everything we write but receipts; suppliers have no access to it."""

RECEIPT_CONTAINER_PREFIX = "to-"
"""Not part of what uploads are looked for in; no longer than that prefix, for a supplier's name may fill the rest."""

_SUPPLIER = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){0,58}[a-z0-9]")


def supplier_container(supplier: str) -> str:
    """`in-<supplier>`. Raises ValueError for a name that is no supplier's (2 to 60 of a-z, 0-9 and single dashes)."""
    if not _SUPPLIER.fullmatch(supplier):
        raise ValueError(f"{supplier!r} is no supplier name: 2 to 60 lower-case letters, digits and single dashes")
    return SUPPLIER_CONTAINER_PREFIX + supplier


def receipt_container(supplier: str) -> str:
    """`to-<supplier>`: what its supplier may read of ours. Raises ValueError as `supplier_container` does."""
    return RECEIPT_CONTAINER_PREFIX + supplier_container(supplier).removeprefix(SUPPLIER_CONTAINER_PREFIX)


def supplier_of(container: str) -> str | None:
    """The supplier whose container this is; None for any other container."""
    supplier = container.removeprefix(SUPPLIER_CONTAINER_PREFIX)
    return supplier if supplier != container and _SUPPLIER.fullmatch(supplier) else None


def working_name(image_id: str) -> str:
    """The picture rebuilt from an original that workers don't read (HEIC), JPEG."""
    return f"working/{image_id}.jpg"


def manifest_name(upload_id: str) -> str:
    """The names that a supplier's manifest lists, as ingest read them, JSON."""
    return f"manifest/{upload_id}.json"


def annotated_name(run_id: str, analysis_id: str) -> str:
    """The annotated picture of one analysis, JPEG."""
    return f"annotated/{run_date(run_id)}/{run_id}/{analysis_id}.jpg"


def thumbnail_name(run_id: str, analysis_id: str) -> str:
    """The small annotated picture for report and mail, JPEG."""
    return f"thumbnail/{run_date(run_id)}/{run_id}/{analysis_id}.jpg"


def converted_name(run_id: str, analysis_id: str, suffix: str) -> str:
    """The lossless picture of one conversion; `suffix` is `png` or `webp`."""
    return f"converted/{run_date(run_id)}/{run_id}/{analysis_id}.{suffix}"


def result_name(run_id: str, analysis_id: str) -> str:
    """The result JSON of one analysis."""
    return f"json/{run_date(run_id)}/{run_id}/{analysis_id}.json"


def report_name(run_id: str) -> str:
    """The run report, one self-contained HTML page."""
    return f"report/{run_id}/index.html"


def receipt_name(run_id: str, suffix: str) -> str:
    """A run's receipt in its supplier's receipts container; `suffix` is `json` or `csv`."""
    return f"runs/{run_id}/receipt.{suffix}"


def latest_receipt_name(suffix: str) -> str:
    """A copy of the newest run's receipt, where its supplier finds it without knowing the run."""
    return f"receipt.{suffix}"


def receipt_index_name(suffix: str) -> str:
    """The list of all receipts in a receipts container."""
    return f"receipts.{suffix}"
