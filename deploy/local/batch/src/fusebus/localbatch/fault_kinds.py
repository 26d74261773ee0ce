"""Which faults can be injected and what each takes: one table for the HTTP route, the command and its help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusebus.localbatch.entities import BatchProblem

Value = str | int | float | bool


@dataclass(frozen=True)
class Field:
    name: str
    kind: type[str] | type[int] | type[float] | type[bool]
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    name: str
    help: str
    fields: tuple[Field, ...]


_POOL = Field("pool", str, "pool", required=True)
_NODE = Field("node", str, "this node; else as many as --count, those with a task first")
_COUNT = Field("count", int, "how many nodes (default 1)")
_NEXT = Field("next", int, "so many times (default 1)")
_SIZE = Field("size", str, "VM size, e.g. Standard_NC4as_T4_v3", required=True)
_REQUESTS = (
    Field("plane", str, "only requests to ARM or to the data plane", choices=("arm", "data")),
    Field("method", str, "only this HTTP method"),
    Field("path", str, "only paths in which this regular expression is found, e.g. /tasks$"),
    Field("next", int, "so many requests (default: 1, or any number with --for-seconds)"),
    Field("for_seconds", float, "not longer than this"),
)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "preempt",
            "take Spot nodes away, after a notice in their Scheduled Events",
            (_POOL, _NODE, _COUNT, Field("notice", float, "seconds between notice and end (default 30; 0: none)")),
        ),
        Kind(
            "announce",
            "another platform event: Reboot and Redeploy restart the machine, Freeze does nothing here",
            (
                _POOL,
                _NODE,
                _COUNT,
                Field("event", str, "what happens", required=True, choices=("Reboot", "Redeploy", "Freeze")),
                Field("notice", float, "seconds until it happens (default 30)"),
            ),
        ),
        Kind(
            "unusable",
            "nodes that Batch cannot use any more",
            (
                _POOL,
                _NODE,
                _COUNT,
                Field("next", int, "instead: so many of the nodes that boot next"),
                Field("recover_seconds", float, "usable again after this (default: never)"),
            ),
        ),
        Kind(
            "start-task",
            "the next start tasks of a pool fail, with a line in their stderr.txt",
            (_POOL, _NEXT, Field("exit_code", int, "their exit code (default 1)")),
        ),
        Kind(
            "quota",
            "the account's quota from now on; what is not given stays, -1 is without limit",
            (
                Field("dedicated", int, "cores of dedicated nodes"),
                Field("spot", int, "cores of Spot nodes"),
                Field("nodes", int, "nodes over all pools"),
                Field("family", str, "VM family whose dedicated cores --cores are, e.g. standardNCASv3_T4Family"),
                Field("cores", int, "of --family"),
            ),
        ),
        Kind(
            "market",
            "how many machines of a size can be had: a resize that wants more ends with AllocationTimedout",
            (_SIZE, Field("spot", int, "Spot nodes; -1: any"), Field("dedicated", int, "dedicated nodes; -1: any")),
        ),
        Kind("size-missing", "a size that the region does not have: resizes end with UnsupportedVMSize", (_SIZE,)),
        Kind(
            "resize-error",
            "the next resizes that grow end with this error and without a node",
            (
                Field("pool", str, "only of this pool"),
                Field("code", str, "e.g. AllocationFailed (default)"),
                Field("message", str, "its sentence"),
                _NEXT,
            ),
        ),
        Kind(
            "boot",
            "how long nodes take from now on",
            (
                Field("seconds", float, "median, from the request to idle"),
                Field("spread", float, "sigma of the log-normal distribution"),
            ),
        ),
        Kind(
            "throttle",
            "429 with Retry-After, nothing is done",
            (*_REQUESTS, Field("retry_after", float, "seconds told to the client, whole ones (default 1)")),
        ),
        Kind(
            "error",
            "another refusal, nothing is done",
            (
                *_REQUESTS,
                Field("status", int, "HTTP status (default 500)"),
                Field("code", str, "Batch error code (default InternalError)"),
            ),
        ),
        Kind("delay", "answers come late", (*_REQUESTS, Field("seconds", float, "how late", required=True))),
        Kind("lose", "it is done, and the connection breaks instead of the answer", _REQUESTS),
    )
}


def checked(order: Mapping[str, Any]) -> tuple[Kind, dict[str, Value]]:
    """The kind of an order and its fields; refuses what is unknown, missing or of another type."""
    kind = KINDS.get(str(order.get("fault")))
    if kind is None:
        raise BatchProblem(400, "InvalidPropertyValue", f"fault is one of {', '.join(KINDS)}.")
    fields = {field.name: field for field in kind.fields}
    given = {name: value for name, value in order.items() if name != "fault" and value is not None}
    for name, value in given.items():
        if name not in fields:
            raise BatchProblem(400, "UnsupportedProperty", f"{kind.name} has no {name}; it has {', '.join(fields)}.")
        _check(fields[name], value)
    for field in kind.fields:
        if field.required and field.name not in given:
            raise BatchProblem(400, "MissingRequiredProperty", f"{kind.name} needs {field.name}.")
    return kind, given


def _check(field: Field, value: object) -> None:
    accepted = (int, float) if field.kind is float else (field.kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and field.kind is not bool):
        raise BatchProblem(400, "InvalidPropertyValue", f"{field.name} must be of type {field.kind.__name__}.")
    if field.choices and value not in field.choices:
        raise BatchProblem(400, "InvalidPropertyValue", f"{field.name} is one of {', '.join(field.choices)}.")
