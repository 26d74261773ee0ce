"""What is printed, once, with a new grant: the link and the ways to use it."""

from __future__ import annotations

from fusebus.blobs import layout
from fusebus.ledger import Grant


def grant_words(grant: Grant, url: str, receipts_url: str) -> list[str]:
    """The lines for the operator to hand on; they hold the secrets."""
    container, _, token = url.partition("?")
    ends = f"{grant.expires_at:%Y-%m-%d %H:%M} UTC"
    back = (
        f"fusebus supplier revoke {grant.supplier} --grant {grant.grant_id}"
        if grant.revocable
        else "not alone: a managed identity signed it (fusebus supplier revoke says how)"
    )
    return [
        f"Grant {grant.grant_id} for {grant.supplier}: it creates files, and can't list, read, change or delete any.",
        f"It ends on {ends}; to take it back: {back}.",
        "This link is shown once and kept nowhere. Whoever has it can upload: send it as you would a password.",
        "",
        url,
        "",
        "Receipts say what became of the photos. These links open in a browser, read receipts and nothing else, and",
        "end with the grant: the list of all deliveries, and the newest one (for programs: .json in place of .csv).",
        "",
        f"     {blob_url(receipts_url, layout.receipt_index_name('csv'))}",
        f"     {blob_url(receipts_url, layout.latest_receipt_name('csv'))}",
        "",
        "Three ways to upload:",
        "1. fusebus-upload (hand on its wheel: uv build --wheel libs/upload): resumes after a cut, keeps a receipt",
        f"     fusebus-upload photos --sas '{url}'",
        "2. azcopy (--check-length=false because the link can't read)",
        f"     azcopy copy 'photos/*' '{url}' --recursive --check-length=false",
        "3. curl, one file at a time; Azure Storage Explorer takes the link as it is (docs/suppliers.md)",
        "     curl --fail-with-body -T photo.jpg -H 'x-ms-blob-type: BlockBlob' -H 'If-None-Match: *' \\",
        f"       '{container}/photo.jpg?{token}'",
    ]


def blob_url(container_url: str, name: str) -> str:
    """The address of a blob of ours under a container's URL with its token."""
    container, _, token = container_url.partition("?")
    return f"{container}/{name}?{token}"
