"""What holds on days with storms, outages, falling quotas and evictions, whatever comes together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.planning import Quantiles, Quota
from fusebus.planning.simulation import Lump, Scenario
from fusebus.planning.simulation.ours import Ours
from fusebus.planning.simulation.scenario import Draws
from fusebus.planning.simulation.scenarios import GPUS
from fusebus.planning.simulation.world import World

T4_FAMILY = GPUS[0].family


@st.composite
def troubled(draw):
    """A scenario with up to three deliveries and anything that can go wrong."""
    lumps = draw(st.lists(st.tuples(st.floats(0, 20_000), st.integers(1, 4000)), min_size=1, max_size=3))
    storm = draw(st.none() | st.tuples(st.floats(0, 10_000), st.floats(300, 30_000)))
    outage = draw(st.none() | st.tuples(st.floats(0, 10_000), st.floats(60, 2000)))
    few = draw(st.none() | st.tuples(st.floats(0, 10_000), st.integers(4, 40)))
    return Scenario(
        name="troubled", says="", lumps=tuple(Lump(at, images) for at, images in sorted(lumps)),
        deadline=draw(st.sampled_from([1800.0, 7200.0, 30_000.0])), offers=GPUS, service=Quantiles(1.5, 2.0, True),
        storms=() if storm is None else ((storm[0], sum(storm)),),
        outages=() if outage is None else ((outage[0], sum(outage)),),
        quotas=() if few is None else ((few[0], (Quota(vcpus=few[1], spot=True), Quota(vcpus=8, family=T4_FAMILY))),),
        spot_life=draw(st.sampled_from([None, 3600.0])), storms_per_hour=draw(st.sampled_from([0.0, 0.25, 3.0])),
        seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(troubled())
def test_whatever_happens_all_work_is_done_no_busy_node_is_removed_and_none_is_left(scenario):
    world, ours = World(scenario, Draws(scenario), self_starting=False), Ours()
    grow, remove, resized = world.grow, world.remove, {}

    def watched(pool, *rest):
        """No pool is resized before its last resize has ended; two classes of one resize are one."""
        assert pool.steady_at <= world.now or resized[pool] == world.now
        resized[pool] = world.now
        return grow(pool, *rest)

    def removed(nodes):
        for node in nodes:
            assert node.pool.steady_at <= world.now
        return remove(nodes)

    world.grow, world.remove = watched, removed
    ours.begin(world)
    world.run()
    assert (world.left, world.billed, world.busy_removed) == (0, 0, 0)
