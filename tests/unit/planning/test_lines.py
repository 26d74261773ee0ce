"""How much is counted on nodes that are late."""

import pytest

from fusebus.planning import KindDemand, Limits, NodeCounts, PoolOffer, PoolState, Prices, Quantiles
from fusebus.planning.lines import lines_of

NOW = 1000.0
OFFER = PoolOffer(
    pool="t4", kind="detect", vm_size="NC4as_T4_v3", family="T4", vcpus=4, images_per_second=1.0, spot_per_hour=0.2
)


def line_of(elapsed, boot):
    state = PoolState(
        name="t4", spot=NodeCounts(target=1, starting=1), ordered_at=NOW - elapsed, boot=Quantiles(boot * 0.7, boot)
    )
    demand = KindDemand(kind="detect", depth=1)
    (found,) = lines_of(demand, {"t4": state}, Prices(offers=(OFFER,)), Limits(), NOW)
    return found


@pytest.mark.parametrize(
    ("elapsed", "boot", "coming", "coming_in"),
    [(100, 400, 1, 300), (390, 400, 1, 60), (900, 400, 1, 60), (921, 400, 0, 60), (10, 2, 1, 1), (125, 2, 0, 1)],
)
def test_a_late_node_is_expected_soon_and_at_last_given_up(elapsed, boot, coming, coming_in):
    found = line_of(elapsed, boot)
    assert (found.coming, found.coming_in) == (coming, coming_in)
