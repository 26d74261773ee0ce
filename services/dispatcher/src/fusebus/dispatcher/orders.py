"""What stands above the policy: kill switch, pauses, pins, breaker, most nodes; each says so in the reason. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fusebus.dispatcher.breaker import Breaker
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.steps import Target
from fusebus.ledger import Pause, Pin


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """More nodes than this may not be had, whoever asks."""

    nodes: int
    because: str
    spot: bool | None = None
    """Of which price class; None: of both together."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """For one pool, at one moment."""

    known: bool = True
    """False: what people ordered could not be read yet, so nothing is done."""
    kill_switch: bool = False
    """From the settings: as a pause to zero, for when the ledger is out of reach."""
    pause: Pause | None = None
    pin: Pin | None = None
    max_nodes: int = 0
    ceilings: tuple[Ceiling, ...] = ()
    """Above a pin; the policy keeps to them by itself."""
    may_spot: bool = True
    may_dedicated: bool = False

    @property
    def mode(self) -> str:
        """As PoolStatus names it, while the dispatcher acts."""
        if self.kill_switch or (self.pause is not None and self.pause.to_zero):
            return "emptied"
        return "paused" if self.pause is not None else "acting"


def obey(target: Target, seen: PoolSeen, orders: Orders, breaker: Breaker, now: datetime) -> Target:
    """The policy's target as far as it may be had; never more nodes than `max_nodes`, whoever asks."""
    if orders.kill_switch:
        return Target(because="the kill switch is set (dispatcher settings): everything goes")
    if not orders.known:
        return _hold(seen, "pins and pauses can't be read: holding still")
    if orders.pause is not None:
        until = f" until {orders.pause.until:%Y-%m-%d %H:%M} UTC" if orders.pause.until else ""
        why = f"by {orders.pause.set_by}{until}" + (f": {orders.pause.reason}" if orders.pause.reason else "")
        if orders.pause.to_zero:
            return Target(because=f"the kill switch is set {why}; everything goes")
        return _hold(seen, f"paused {why}")
    if orders.pin is not None:
        target = _pinned(target, seen, orders, orders.pin)
    target = _at_most(target, seen, orders.max_nodes, f"at most {orders.max_nodes} nodes are allowed")
    room = breaker.room(seen, now)
    if room is not None:
        target = _at_most(target, seen, room[0], breaker.words(now), most_workers=room[1])
    return target


def _hold(seen: PoolSeen, because: str) -> Target:
    dedicated, spot = len(seen.staying(True)), len(seen.staying(False))
    return Target(dedicated=dedicated, spot=spot, workers=seen.live, hold=True, because=because)


def _pinned(target: Target, seen: PoolSeen, orders: Orders, pin: Pin) -> Target:
    """So many nodes, of the kind that the pool has: Spot where it may have both. Workers follow the work."""
    nodes = min([pin.nodes, orders.max_nodes, *(one.nodes for one in orders.ceilings if one.spot is None)])
    spot = min(target.spot, nodes) if target.dedicated else nodes
    if not orders.may_dedicated:
        spot = nodes
    elif not orders.may_spot:
        spot = 0
    why = f"pinned to {pin.nodes} node{'s' * (pin.nodes != 1)} by {pin.set_by} until {pin.until:%Y-%m-%d %H:%M} UTC"
    if pin.reason:
        why = f"{why}: {pin.reason}"
    dedicated = min([nodes - spot, *(one.nodes for one in orders.ceilings if one.spot is False)])
    spot = min([spot, *(one.nodes for one in orders.ceilings if one.spot is True)])
    nodes = dedicated + spot
    if nodes < pin.nodes:
        why = "; ".join((why, *_limits(pin, orders, dedicated, spot)))
    # An unknown demand leaves the workers as they are; the number of nodes is a person's word all the same.
    wanted = seen.live if target.hold else max(target.workers, seen.running)
    workers = min(wanted, nodes)
    because = f"{why}; the policy beside it: {target.because}"
    return Target(dedicated=dedicated, spot=spot, workers=workers, because=because, late=target.late)


def _limits(pin: Pin, orders: Orders, dedicated: int, spot: int) -> list[str]:
    """What keeps a pin from its nodes, in words."""
    words = [f"at most {orders.max_nodes} are allowed"] if orders.max_nodes < pin.nodes else []
    got = {None: dedicated + spot, True: spot, False: dedicated}
    # A quota of the class of which the pin takes none is no news.
    return words + [
        one.because
        for one in orders.ceilings
        if one.nodes < pin.nodes and one.nodes <= got[one.spot] and (one.nodes or one.spot is not False)
    ]


def _at_most(target: Target, seen: PoolSeen, most: int, why: str, most_workers: int | None = None) -> Target:
    """Cut down, Spot first to go."""
    workers = target.workers if most_workers is None else min(target.workers, max(most_workers, 0))
    if target.hold or (target.nodes <= most and workers == target.workers):
        return target
    dedicated = min(target.dedicated, most)
    spot = min(target.spot, most - dedicated)
    workers = min(workers, max(most, seen.running)) if target.nodes > most else workers
    return msgspec.structs.replace(
        target, dedicated=dedicated, spot=spot, workers=workers, because=f"{target.because}; {why}"
    )
