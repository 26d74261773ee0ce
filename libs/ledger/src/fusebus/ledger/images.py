"""Which upload brought an image first: one row per supplier, image and job kind, inserted if absent."""

from __future__ import annotations

import msgspec

from fusebus.contracts.messages import JobKind
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import ImageClaim
from fusebus.ledger.tables import Row, Tables


class ImageLedger:
    """Duplicates by content."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def claim_image(
        self, supplier: str, image_id: str, upload_id: str, run_id: str, job_kind: JobKind = JobKind.DETECT
    ) -> ImageClaim:
        """Whose image it is: this upload's where nobody was first, and again in every repeat.

        A picture that was converted was not analysed: for each job kind another upload may be the first.
        """
        claim = ImageClaim(supplier=supplier, image_id=image_id, upload_id=upload_id, run_id=run_id, job_kind=job_kind)
        async for _ in self._tables.tries(f"claiming image {image_id}"):
            if version := await self._tables.insert("images", _row(claim)):  # nearly all photos are new
                return msgspec.structs.replace(claim, version=version)
            if found := await self._tables.get("images", supplier, _name(claim)):
                return _claim(found)
        raise AssertionError("tries ends with an error")

    async def take_over_image(self, claim: ImageClaim, upload_id: str, run_id: str) -> ImageClaim:
        """Put this upload in the place of the one in `claim`; whose image it is afterwards, if others were quicker."""
        mine = msgspec.structs.replace(claim, upload_id=upload_id, run_id=run_id)
        if version := await self._tables.replace("images", _row(mine)):
            return msgspec.structs.replace(mine, version=version)
        return await self.claim_image(claim.supplier, claim.image_id, upload_id, run_id, claim.job_kind)


def _row(claim: ImageClaim) -> Row:
    return Row(claim.supplier, _name(claim), to_columns(claim), claim.version)


def _name(claim: ImageClaim) -> str:
    """`detect` was the only kind that rows were named for at first."""
    return claim.image_id if claim.job_kind is JobKind.DETECT else f"{claim.image_id}:{claim.job_kind.value}"


def _claim(row: Row) -> ImageClaim:
    return from_columns(row.columns, ImageClaim, version=row.version)
