"""Pools through azure-mgmt-batch and azure-batch: states, ETags, quota, sizes, resizes of all outcomes."""

from datetime import timedelta
from typing import Any

import pytest
from azure.batch import models as batch_models
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.mgmt.batch import models as arm_models

UNCHANGED = MatchConditions.IfNotModified


async def test_a_pool_goes_from_steady_over_resizing_back_and_ends(place: Any) -> None:
    before = await place.properties()
    assert (before.allocation_state, before.provisioning_state) == ("Steady", "Succeeded")
    resizing = await place.scale(spot=1, dedicated=1)
    assert resizing.properties.allocation_state == "Resizing"
    steady = await place.steady()
    assert (steady.current_dedicated_nodes, steady.current_low_priority_nodes) == (1, 1)
    assert sorted(node.is_dedicated for node in await place.nodes_are("idle", "idle")) == [False, True]
    (counts,) = await place.call("data.list_pool_node_counts")
    assert (counts.dedicated.idle, counts.low_priority.idle, counts.low_priority.total) == (1, 1, 1)
    assert [pool.name for pool in await place.call("arm.pool.list_by_batch_account")] == ["gpu"]
    await place.call("arm.pool.begin_delete", "gpu", polling_interval=0)
    with pytest.raises(ResourceNotFoundError):
        await place.properties()


async def test_every_change_gives_a_new_etag_and_stale_ones_are_refused(place: Any) -> None:
    first = (await place.call("arm.pool.get", "gpu")).etag
    second = (await place.scale(guard={"etag": first, "match_condition": UNCHANGED})).etag
    assert second != first
    with pytest.raises(ResourceModifiedError) as refused:
        await place.scale(spot=1, guard={"etag": first, "match_condition": UNCHANGED})
    assert refused.value.status_code == 412
    assert (await place.properties()).scale_settings.fixed_scale.target_low_priority_nodes == 0
    same: dict[str, Any] = {"etag": second, "match_condition": MatchConditions.IfModified}
    with pytest.raises(ResourceModifiedError) as unchanged:  # so the SDK calls it
        await place.call("data.get_pool", "gpu", **same)
    assert unchanged.value.status_code == 304
    assert (await place.call("data.get_pool", "gpu", etag=second, match_condition=UNCHANGED)).etag == second


async def test_a_pool_is_not_created_over_another(aio_place: Any) -> None:
    pool = arm_models.Pool(properties=arm_models.PoolProperties(vm_size="Standard_D2s_v5"))
    missing = MatchConditions.IfMissing
    with pytest.raises(HttpResponseError) as refused:
        await aio_place.call("arm.pool.create", "gpu", pool, match_condition=missing, etag="*")
    assert refused.value.status_code == 412
    with pytest.raises(ResourceExistsError):
        await aio_place.call(
            "data.create_pool", batch_models.BatchPoolCreateOptions(id="gpu", vm_size="Standard_D2s_v5")
        )


async def test_the_data_plane_creates_resizes_stops_and_deletes_pools_too(place: Any) -> None:
    options = batch_models.BatchPoolCreateOptions(id="small", vm_size="Standard_D2s_v5", target_dedicated_nodes=1)
    await place.call("data.create_pool", options)
    assert await place.call("data.pool_exists", "small")
    resize = batch_models.BatchPoolResizeOptions(target_low_priority_nodes=2, resize_timeout=timedelta(minutes=5))

    async def steady() -> bool:
        return (await place.call("data.get_pool", "small")).allocation_state == "steady"

    await place.until(steady)
    await place.call("data.begin_resize_pool", "small", resize, polling_interval=0)
    pool = await place.call("data.get_pool", "small")
    assert (pool.target_dedicated_nodes, pool.current_low_priority_nodes) == (1, 2)
    assert pool.resize_timeout == timedelta(minutes=5)
    with pytest.raises(HttpResponseError) as refused:
        await place.call("data.begin_stop_pool_resize", "small", polling_interval=0)
    assert refused.value.status_code == 409
    change = batch_models.BatchPoolUpdateOptions(metadata=[batch_models.BatchMetadataItem(name="a", value="b")])
    await place.call("data.update_pool", "small", change)
    assert (await place.call("data.get_pool", "small")).metadata[0].value == "b"
    await place.call("data.begin_delete_pool", "small", polling_interval=0)
    with pytest.raises(ResourceNotFoundError):  # the SDK never answers False
        await place.call("data.pool_exists", "small")


async def test_quota_and_sizes_of_a_region_can_be_read(start_batch: Any) -> None:
    for sync in (True, False):
        place = await start_batch(
            sync=sync, dedicated_cores=8, spot_cores=100, family_cores={"standardNCASv3_T4Family": 4}
        )
        account = (await place.call("arm.batch_account.get")).properties
        assert (account.dedicated_core_quota, account.low_priority_core_quota) == (8, 100)
        assert account.dedicated_core_quota_per_vm_family_enforced
        (family,) = account.dedicated_core_quota_per_vm_family
        assert (family.name, family.core_quota) == ("standardNCASv3_T4Family", 4)
        assert (await place.call("arm.location.get_quotas", "local")).account_quota == 3
        sizes = await place.call("arm.location.list_supported_virtual_machine_skus", "local")
        t4 = next(size for size in sizes if size.name == "Standard_NC4as_T4_v3")
        facts = {capability.name: capability.value for capability in t4.capabilities}
        assert (t4.family_name, facts["vCPUs"], facts["GPUs"]) == ("standardNCASv3_T4Family", "4", "1")
        assert next(size for size in sizes if size.name == "Standard_NC6s_v3").batch_support_end_of_life is not None
        wanted = "familyName eq 'StandardNCadsH100v5Family'"
        found = await place.call("arm.location.list_supported_virtual_machine_skus", "local", filter=wanted)
        assert {size.family_name for size in found} == {"StandardNCadsH100v5Family"}


@pytest.mark.parametrize(
    ("limits", "spot", "dedicated", "code"),
    [
        ({"spot_cores": 4}, 2, 0, "AccountLowPriorityCoreQuotaReached"),
        ({"dedicated_cores": 4}, 0, 2, "AccountCoreQuotaReached"),
        ({"family_cores": {"standardNCASv3_T4Family": 4}}, 0, 2, "AccountVMSeriesCoreQuotaReached"),
    ],
)
async def test_a_resize_above_a_quota_ends_with_what_fits_and_its_code(
    start_batch: Any, limits: dict[str, Any], spot: int, dedicated: int, code: str
) -> None:
    place = await start_batch(**limits)
    await place.make_pool(spot=spot, dedicated=dedicated)
    properties = await place.steady()
    assert properties.current_low_priority_nodes + properties.current_dedicated_nodes == 1
    assert await place.errors() == [code]


async def test_a_resize_without_machines_times_out_and_the_error_stays_until_the_next(aio_place: Any) -> None:
    aio_place.server.inject("market", size="Standard_NC4as_T4_v3", spot=1)
    resizing = await aio_place.scale(spot=3, resize_timeout=timedelta(seconds=0.3))
    assert resizing.properties.allocation_state == "Resizing"
    properties = await aio_place.steady()
    assert properties.current_low_priority_nodes == 1
    assert properties.scale_settings.fixed_scale.target_low_priority_nodes == 3
    assert await aio_place.errors() == ["AllocationTimedout"]
    await aio_place.scale(spot=1)
    assert await aio_place.errors() == ["AllocationTimedout"], "nothing was resized"
    await aio_place.scale(spot=0)
    await aio_place.steady()
    assert await aio_place.errors() == []


async def test_no_more_than_100_nodes_are_removed_in_one_call_whether_they_are_there_or_not(aio_place: Any) -> None:
    for count, status in ((101, 400), (0, 400), (100, 404)):
        names = [f"tvm-gpu-{number:04d}" for number in range(count)]
        with pytest.raises(HttpResponseError) as refused:
            await aio_place.call("data.begin_remove_nodes", "gpu", batch_models.BatchNodeRemoveOptions(node_ids=names))
        assert refused.value.status_code == status


async def test_machines_that_come_up_before_the_timeout_are_taken(aio_place: Any) -> None:
    aio_place.server.inject("market", size="Standard_NC4as_T4_v3", spot=0)
    await aio_place.scale(spot=2)

    async def resizing_without_nodes() -> bool:
        return bool(aio_place.server.state.pool("gpu").short)

    await aio_place.until(resizing_without_nodes)
    aio_place.server.inject("market", size="Standard_NC4as_T4_v3", spot=-1)
    assert (await aio_place.steady()).current_low_priority_nodes == 2
    assert await aio_place.errors() == []


async def test_a_stopped_resize_is_stopping_then_steady_with_what_is_there(aio_place: Any) -> None:
    aio_place.server.inject("market", size="Standard_NC4as_T4_v3", spot=1)
    await aio_place.scale(spot=3)
    await aio_place.nodes_are("idle")
    stopping = await aio_place.call("arm.pool.stop_resize", "gpu")
    assert stopping.properties.allocation_state == "Stopping"
    assert (await aio_place.steady()).current_low_priority_nodes == 1
    assert await aio_place.errors() == ["ResizeStopped"]


async def test_a_size_that_the_region_does_not_have_is_a_resize_error(aio_place: Any) -> None:
    aio_place.server.inject("size-missing", size="Standard_NC4as_T4_v3")
    aio_place.server.inject("resize-error", code="AllocationFailed")
    await aio_place.scale(spot=1)
    assert (await aio_place.steady()).current_low_priority_nodes == 0
    assert await aio_place.errors() == ["UnsupportedVMSize"]
    names = {size.name for size in await aio_place.call("arm.location.list_supported_virtual_machine_skus", "local")}
    assert "Standard_NC4as_T4_v3" not in names and "Standard_NC8as_T4_v3" in names


async def test_too_short_a_resize_timeout_is_refused(start_batch: Any) -> None:
    place = await start_batch(minimum_resize_timeout_seconds=300.0)
    await place.make_pool()
    with pytest.raises(HttpResponseError) as refused:
        await place.scale(spot=1, resize_timeout=timedelta(seconds=299))
    assert refused.value.status_code == 400
