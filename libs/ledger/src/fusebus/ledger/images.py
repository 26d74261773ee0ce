"""Which upload brought an image first: one row per supplier and image, inserted if absent."""

from __future__ import annotations

import msgspec

from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import ImageClaim
from fusebus.ledger.tables import Row, Tables


class ImageLedger:
    """Duplicates by content."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def claim_image(self, supplier: str, image_id: str, upload_id: str, run_id: str) -> ImageClaim:
        """Whose image it is: this upload's where nobody was first, and again in every repeat."""
        claim = ImageClaim(supplier=supplier, image_id=image_id, upload_id=upload_id, run_id=run_id)
        async for _ in self._tables.tries(f"claiming image {image_id}"):
            if version := await self._tables.insert("images", _row(claim)):  # nearly all photos are new
                return msgspec.structs.replace(claim, version=version)
            if found := await self._tables.get("images", supplier, image_id):
                return _claim(found)
        raise AssertionError("tries ends with an error")

    async def take_over_image(self, claim: ImageClaim, upload_id: str, run_id: str) -> ImageClaim:
        """Put this upload in the place of the one in `claim`; whose image it is afterwards, if others were quicker."""
        mine = msgspec.structs.replace(claim, upload_id=upload_id, run_id=run_id)
        if version := await self._tables.replace("images", _row(mine)):
            return msgspec.structs.replace(mine, version=version)
        return await self.claim_image(claim.supplier, claim.image_id, upload_id, run_id)


def _row(claim: ImageClaim) -> Row:
    return Row(claim.supplier, claim.image_id, to_columns(claim), claim.version)


def _claim(row: Row) -> ImageClaim:
    return from_columns(row.columns, ImageClaim, version=row.version)
