"""The ARM calls: account with its quotas, regions with their VM sizes, pools."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Pool
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front
from fusebus.localbatch.sizes import SIZES, Size

SUBSCRIPTION = "/subscriptions/{subscription}"
ACCOUNTS = SUBSCRIPTION + "/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts"
LOCATION = SUBSCRIPTION + "/providers/Microsoft.Batch/locations/{location}"
ACCOUNTS_OF_REGION = 3  # how many accounts a subscription may have in a region
LINK = "nextLink"


class _Arm:
    def __init__(self, front: Front) -> None:
        self._front, self._state = front, front.state

    async def account(self, request: web.Request) -> web.Response:
        return answers.one(request, self._account(request, request.path, request.match_info["account"]))

    async def accounts(self, request: web.Request) -> web.Response:
        """The one account there is, under the name that the local stack uses."""
        root = f"{SUBSCRIPTION}/resourceGroups/{{group}}".format(
            subscription=request.match_info["subscription"], group=request.match_info.get("group", "local")
        )
        place = f"{root}/providers/Microsoft.Batch/batchAccounts/local"
        return answers.listing(request, [self._account(request, place, "local")], key="name", link=LINK)

    def _account(self, request: web.Request, place: str, name: str) -> dict[str, Any]:
        quota = self._state.quota
        properties: dict[str, Any] = {
            "accountEndpoint": request.host,
            "provisioningState": "Succeeded",
            "poolAllocationMode": "BatchService",
            "dedicatedCoreQuota": quota.told(dedicated=True),
            "lowPriorityCoreQuota": quota.told(dedicated=False),
            "dedicatedCoreQuotaPerVMFamilyEnforced": bool(quota.families),
            "dedicatedCoreQuotaPerVMFamily": [
                {"name": family, "coreQuota": cores} for family, cores in sorted(quota.families.items())
            ],
            "poolQuota": self._state.limits.max_pools,
            "activeJobAndJobScheduleQuota": self._state.limits.max_active_jobs,
        }
        kind = "Microsoft.Batch/batchAccounts"
        return {"id": place, "name": name, "type": kind, "location": self._front.location, "properties": properties}

    async def location_quotas(self, request: web.Request) -> web.Response:
        return web.json_response({"accountQuota": ACCOUNTS_OF_REGION})

    async def sizes(self, request: web.Request) -> web.Response:
        """What the region has; sizes that a fault has taken away are not told."""
        missing = self._state.faults.missing_sizes
        found = [_size_view(size) for size in SIZES if size.name.lower() not in missing]
        return answers.listing(request, found, key="name", link=LINK)

    async def pools(self, request: web.Request) -> web.Response:
        found = [views.arm_pool(pool, f"{request.path}/{pool.id}") for pool in self._state.pools.values()]
        return answers.listing(request, found, key="name", link=LINK)

    async def get(self, request: web.Request) -> web.Response:
        return self._answer(request, self._state.pool(request.match_info["pool"]))

    async def put(self, request: web.Request) -> web.Response:
        body, pool_id = await answers.body_of(request), request.match_info["pool"]
        properties, match = body.get("properties") or {}, request.headers.get("If-Match")
        if match is not None and pool_id not in self._state.pools:
            raise BatchProblem(412, "ConditionNotMet", f"The pool {pool_id} does not exist.")
        if match is not None:
            return self._answer(request, self._state.update_pool(pool_id, properties, match))
        only_new = request.headers.get("If-None-Match") == "*"
        return self._answer(request, self._state.create_pool(pool_id, properties, only_new=only_new))

    async def patch(self, request: web.Request) -> web.Response:
        body = await answers.body_of(request)
        pool = self._state.pool(request.match_info["pool"])
        answers.check_conditions(request, pool.etag, pool.modified)
        return self._answer(request, self._state.update_pool(pool.id, body.get("properties") or {}))

    async def stop_resize(self, request: web.Request) -> web.Response:
        return self._answer(request, self._state.stop_resize(request.match_info["pool"]))

    async def delete(self, request: web.Request) -> web.Response:
        if request.match_info["pool"] not in self._state.pools:
            return answers.plain(204)
        self._state.delete_pool(request.match_info["pool"])
        place = f"{answers.base_of(request)}{request.path}/deletion?{request.query_string}"
        return answers.plain(202, {"Location": place, "Retry-After": "1"})

    async def deletion(self, request: web.Request) -> web.Response:
        gone = request.match_info["pool"] not in self._state.pools
        return answers.plain(200) if gone else answers.plain(202, {"Retry-After": "1"})

    @staticmethod
    def _answer(request: web.Request, pool: Pool) -> web.Response:
        root = request.path.split("/pools")[0]
        return answers.one(request, views.arm_pool(pool, f"{root}/pools/{pool.id}"), pool.etag)


def routes(front: Front) -> list[web.RouteDef]:
    arm = _Arm(front)
    account, pool = f"{ACCOUNTS}/{{account}}", f"{ACCOUNTS}/{{account}}/pools/{{pool}}"
    return [
        web.get(f"{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts", arm.accounts),
        web.get(ACCOUNTS, arm.accounts),
        web.get(account, arm.account),
        web.get(f"{LOCATION}/quotas", arm.location_quotas),
        web.get(f"{LOCATION}/virtualMachineSkus", arm.sizes),
        web.get(f"{account}/pools", arm.pools),
        web.get(pool, arm.get),
        web.put(pool, arm.put),
        web.patch(pool, arm.patch),
        web.delete(pool, arm.delete),
        web.get(f"{pool}/deletion", arm.deletion),
        web.post(f"{pool}/stopResize", arm.stop_resize),
    ]


def _size_view(size: Size) -> dict[str, Any]:
    capabilities = {
        "vCPUs": str(size.cores),
        "GPUs": str(size.gpus),
        "MemoryGB": f"{size.memory_gib:g}",
        "LowPriorityCapable": "True",
    }
    view: dict[str, Any] = {
        "name": size.name,
        "familyName": size.family,
        "capabilities": [{"name": name, "value": value} for name, value in capabilities.items()],
    }
    if size.end_of_life is not None:
        view["batchSupportEndOfLife"] = f"{size.end_of_life}T00:00:00Z"
    return view
