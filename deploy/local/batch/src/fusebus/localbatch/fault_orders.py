"""Carries out orders for faults on the state machine and on the rules for requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fusebus.localbatch.entities import BatchProblem, EventKind, Node, NodeState
from fusebus.localbatch.fault_kinds import Value, checked
from fusebus.localbatch.fleet_faults import FleetFaults, ResizeFault
from fusebus.localbatch.request_faults import Effect, Plane, RequestFaults, Rule
from fusebus.localbatch.state import BatchState

NOTICE_SECONDS = 30.0  # what Azure gives a Spot machine at best
Fields = Mapping[str, Any]


def inject(state: BatchState, requests: RequestFaults, order: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the order says; answers with the nodes it hit, where it hits nodes. Raises BatchProblem."""
    kind, fields = checked(order)
    if kind.name in _ON_REQUESTS:
        requests.rules.append(_rule(_ON_REQUESTS[kind.name], fields, state.clock()))
        return {"fault": kind.name}
    nodes = _ON_FLEET[kind.name](state, fields)
    return {"fault": kind.name, **({} if nodes is None else {"nodes": nodes})}


def clear(state: BatchState, requests: RequestFaults) -> None:
    """End what lasts: rules for requests, market, sizes, boots, coming failures. A changed quota goes back too."""
    requests.rules.clear()
    state.faults = FleetFaults()
    state.quota = type(state.quota).of(state.limits)


def active(state: BatchState, requests: RequestFaults) -> dict[str, Any]:
    """What is in force, for people."""
    faults, quota, now = state.faults, state.quota, state.clock()
    return {
        "requests": [
            {"effect": rule.effect, "plane": rule.plane, "method": rule.method, "path": rule.path, "left": rule.left}
            for rule in requests.rules
            if rule.alive(now)
        ],
        "market": [
            {"size": size, "dedicated": dedicated, "nodes": nodes} for (size, dedicated), nodes in faults.market.items()
        ],
        "missing_sizes": sorted(faults.missing_sizes),
        "resize_errors": [{"pool": fault.pool_id, "code": fault.code, "left": fault.left} for fault in faults.resizes],
        "unusable_boots": dict(faults.unusable_boots),
        "start_tasks": {pool: left for pool, (left, _) in faults.start_tasks.items()},
        "boot": {"seconds": faults.boot_seconds, "spread": faults.boot_spread},
        "quota": {
            "dedicated": quota.dedicated,
            "spot": quota.spot,
            "nodes": quota.nodes,
            "families": dict(quota.families),
        },
    }


# --- machines


def _preempt(state: BatchState, fields: Fields) -> list[str]:
    notice, chosen = float(fields.get("notice", NOTICE_SECONDS)), _chosen(state, fields, spot_only=True)
    for node in chosen:
        if notice > 0:
            state.announce(fields["pool"], node.id, EventKind.PREEMPT, notice)
        else:
            state.preempt(fields["pool"], node.id)
    return [node.id for node in chosen]


def _announce(state: BatchState, fields: Fields) -> list[str]:
    kind, notice = EventKind(fields["event"]), float(fields.get("notice", NOTICE_SECONDS))
    chosen = _chosen(state, fields)
    for node in chosen:
        state.announce(fields["pool"], node.id, kind, notice)
    return [node.id for node in chosen]


def _unusable(state: BatchState, fields: Fields) -> list[str]:
    pool_id = state.pool(fields["pool"]).id
    if "next" in fields:
        state.faults.unusable_boots[pool_id] = int(fields["next"])
        return []
    chosen = _chosen(state, fields)
    for node in chosen:
        state.break_node(pool_id, node.id, fields.get("recover_seconds"))
    return [node.id for node in chosen]


def _chosen(state: BatchState, fields: Fields, *, spot_only: bool = False) -> list[Node]:
    """The named node, or the first `count` that are up, those with a task before others."""
    if "node" in fields:
        return [state.node(fields["pool"], fields["node"])]
    nodes = [
        node
        for node in state.pool(fields["pool"]).nodes.values()
        if node.has_machine and not node.removing and not (spot_only and node.dedicated) and node.notice is None
    ]
    up = [node for node in nodes if node.state is not NodeState.UNUSABLE]
    up.sort(key=lambda node: node.run is None)
    count = int(fields.get("count", 1))
    if len(up) < count:
        raise BatchProblem(409, "NodeStateInvalid", f"The pool has {len(up)} such nodes, not {count}.")
    return up[:count]


def _start_task(state: BatchState, fields: Fields) -> None:
    pool = state.pool(fields["pool"])
    if not (pool.properties.get("startTask") or {}).get("commandLine"):
        raise BatchProblem(409, "OperationNotValidOnPool", f"The pool {pool.id} has no start task.")
    state.faults.start_tasks[pool.id] = int(fields.get("next", 1)), int(fields.get("exit_code", 1))


# --- what can be had


def _quota(state: BatchState, fields: Fields) -> None:
    quota = state.quota
    if ("family" in fields) is not ("cores" in fields):
        raise BatchProblem(400, "MissingRequiredProperty", "quota takes family and cores together.")
    for name in ("dedicated", "spot", "nodes"):
        if name in fields:
            setattr(quota, name, _limit(fields[name]))
    if "family" in fields:
        cores = _limit(fields["cores"])
        if cores is None:
            quota.families.pop(fields["family"], None)
        else:
            quota.families[fields["family"]] = cores


def _market(state: BatchState, fields: Fields) -> None:
    for name, dedicated in (("spot", False), ("dedicated", True)):
        if name in fields:
            key, limit = (fields["size"].lower(), dedicated), _limit(fields[name])
            if limit is None:
                state.faults.market.pop(key, None)
            else:
                state.faults.market[key] = limit


def _limit(value: Value) -> int | None:
    return None if int(value) < 0 else int(value)


def _size_missing(state: BatchState, fields: Fields) -> None:
    state.faults.missing_sizes.add(fields["size"].lower())


def _resize_error(state: BatchState, fields: Fields) -> None:
    message = fields.get("message", "Desired number of nodes could not be allocated.")
    code, left = fields.get("code", "AllocationFailed"), int(fields.get("next", 1))
    state.faults.resizes.append(ResizeFault(fields.get("pool"), code, message, left))


def _boot(state: BatchState, fields: Fields) -> None:
    state.faults.boot_seconds = fields.get("seconds", state.faults.boot_seconds)
    state.faults.boot_spread = fields.get("spread", state.faults.boot_spread)


# --- requests


def _rule(effect: Effect, fields: Fields, now: float) -> Rule:
    path, lasts = fields.get("path", ""), fields.get("for_seconds")
    try:
        re.compile(path)
    except re.error as error:
        raise BatchProblem(400, "InvalidPropertyValue", f"path is not a regular expression: {error}") from error
    return Rule(
        effect,
        plane=Plane(fields["plane"]) if "plane" in fields else None,
        method=fields["method"].upper() if "method" in fields else None,
        path=path,
        left=fields.get("next", 1 if lasts is None else None),
        until=None if lasts is None else now + lasts,
        retry_after=float(fields.get("retry_after", 1.0)),
        seconds=float(fields.get("seconds", 0.0)),
        status=int(fields.get("status", 500)),
        code=fields.get("code", "InternalError"),
    )


_ON_REQUESTS = {effect.value: effect for effect in Effect}
_ON_FLEET: Mapping[str, Callable[[BatchState, Fields], list[str] | None]] = {
    "preempt": _preempt,
    "announce": _announce,
    "unusable": _unusable,
    "start-task": _start_task,
    "quota": _quota,
    "market": _market,
    "size-missing": _size_missing,
    "resize-error": _resize_error,
    "boot": _boot,
}
