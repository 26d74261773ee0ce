import numpy as np
import pytest

from fusebus.blobs import layout
from fusebus.notifier.summary import Picture
from fusebus.notifier.thumbnails import EDGE, shrink_jpeg, thumbnails
from fusebus.vision import decode, encode_jpeg


@pytest.fixture
def pictures(make):
    def picture(number: int) -> Picture:
        found = make.analysed(f"u{number}")
        return Picture(
            upload_id=found.upload_id,
            name="n",
            analysis_id=found.analysis_id,
            final="analysed",
            detections=1,
            best_score=0.5,
            model="m",
            annotated=found.annotated.name,
            result=found.result.name,
        )

    return [picture(number) for number in range(3)]


async def test_a_thumbnail_is_small_and_kept_for_the_next_time(world, make, pictures):
    world.results[pictures[0].annotated] = encode_jpeg(np.full((900, 1200, 3), 128, np.uint8))
    found = await thumbnails(make.run_id, pictures[:1], world.results, shrink_jpeg)
    assert max(decode(found["u0"]).shape[:2]) == EDGE
    del world.results[pictures[0].annotated]
    assert await thumbnails(make.run_id, pictures[:1], world.results, shrink_jpeg) == found
    assert layout.thumbnail_name(make.run_id, pictures[0].analysis_id) in world.results


async def test_pictures_that_are_gone_or_damaged_are_left_out(world, make, pictures):
    world.results[pictures[0].annotated] = b"not a picture"
    world.results[pictures[2].annotated] = encode_jpeg(np.zeros((30, 40, 3), np.uint8))
    found = await thumbnails(make.run_id, pictures, world.results, shrink_jpeg)
    assert list(found) == ["u2"]
