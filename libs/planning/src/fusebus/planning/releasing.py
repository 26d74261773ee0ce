"""When the nodes at hand suffice: which to let go, which to hold, and what a window needs beforehand."""

from __future__ import annotations

import msgspec

from fusebus.planning.buying import STILL_ARRIVING, sure, take
from fusebus.planning.demand import Window
from fusebus.planning.lines import Key, Line
from fusebus.planning.mixes import Wish, choose
from fusebus.planning.view import Verdict, View, said, seconds
from fusebus.planning.work import Load, at_hand, is_covered

STEADY_FLOW = 600.0  # seconds that a delivery must last to be a flow
WORTH_MOVING = 0.8  # other nodes must do the rest for less than this share of its cost
WORTH_WARMING = 0.99  # a warm start must save more than 1 %

LATE_WINDOW = 300.0  # seconds after its opening that a window's images are waited for: depths lag, uploads are late


def release(view: View) -> Verdict:
    """With work at hand that is covered: keep, or let go what the rest does not need."""
    found = _unneeded(view) or _retired(view) or _flow(view) or _moved(view)
    if found:
        targets, words = found
        return Verdict(targets=targets, because=words)
    last = view.work[-1]
    words = (
        f"{last.images} {view.kind.kind} images, {view.kind.in_flight} in flight, the first due in "
        f"{seconds(view.due[0].deadline - view.now)}: {view.ready} nodes ready and {view.coming} coming suffice"
    )
    return Verdict(targets=view.kept, because=words)


def _unneeded(view: View) -> tuple[dict[Key, int], str] | None:
    """More nodes than images: the surplus goes, if what it saves (or has wasted) is worth a resize."""
    images, surplus = view.work[-1].images, view.ready - view.work[-1].images
    longest = max((line.service.p50 for line in view.lines if line.ready), default=0.0)
    idle = 0.0 if view.idle_since is None else view.now - view.idle_since
    if surplus <= 0 or surplus * max(longest / 2, idle) < view.limits.resize_worth:
        return None
    words = f"{view.ready} nodes have only {images} images of {longest:.3g} s: {surplus} can go"
    return _without(view, surplus), words


def _without(view: View, surplus: int) -> dict[Key, int]:
    """The targets with so many ready nodes fewer, the dearest first."""
    targets = view.kept
    for line in reversed(view.lines):
        gone = min(surplus, line.ready)
        targets[line.key] -= gone
        surplus -= gone
    return targets


def _retired(view: View) -> tuple[dict[Key, int], str] | None:
    """The dearest nodes go, all in one decision, once cheaper ones that are ready do all the work in time."""
    rest, gone = [line for line in view.lines if line.ready], list[Line]()
    flow = (view.kind.arrivals_per_second or 0.0) if view.kind.quiet < STILL_ARRIVING else 0.0
    while len(rest) > 1 and rest[-1].cost_per_image > rest[0].cost_per_image * 1.02:
        sure = [line for line in rest[:-1] if not line.storm]
        enough = sum(line.ready * line.rate for line in sure) >= flow
        limits = view.limits
        if not sure or not enough or not is_covered(sure, view.work, limits.margin, view.now, limits.headroom):
            break
        gone.append(rest.pop())
    if not gone:
        return None
    targets = view.kept | {line.key: 0 for line in gone}
    left = [(line, line.ready) for line in rest if not line.storm]
    words = f"{said(left)} do the {view.work[-1].images} {view.kind.kind} images in time"
    dear = " and ".join(f"{line.ready} {line.name} at {line.price:.3g}" for line in gone)
    return targets, f"{words}: {dear} can go"


def _moved(view: View) -> tuple[dict[Key, int], str] | None:
    """Where others would do the rest much cheaper, boots included, they are bought; then the dear ones go."""
    in_use = [line for line in view.lines if line.ready]
    if not in_use or view.coming:
        return None
    dear = in_use[-1]
    gone = msgspec.structs.replace(dear, ready=0, why_not="too dear")
    lines = [gone if line is dear else line for line in view.lines]
    wish = Wish(work=view.work, limits=view.limits, start=view.now, now=view.now)
    choice = choose(sure(view, lines), wish, view.room)
    rate = sum(line.ready * line.rate for line in in_use)
    per_image = sum(line.ready * line.rate * line.cost_per_image for line in in_use) / rate
    before = view.work[-1].images * per_image
    if not choice.nodes or round(choice.lacking) > 0 or choice.cost >= before * WORTH_MOVING:
        return None
    targets, words = take(view, choice)
    work = f"{view.work[-1].images} {view.kind.kind} images"
    return targets, f"{work} cost {before:.2f} with {dear.name}, {choice.cost:.2f} else: {words}"


def _flow(view: View) -> tuple[dict[Key, int], str] | None:
    """A steady flow with a short queue: only nodes that it fills are worth keeping."""
    kind, now = view.kind, view.now
    flows = kind.arrivals_per_second and kind.quiet < STILL_ARRIVING and (kind.delivery_age or 0.0) > STEADY_FLOW
    rate = sum(line.ready * line.rate for line in view.lines)
    if not flows or rate <= 0 or view.work[-1].images / rate > view.limits.short_queue or view.coming:
        return None
    assert kind.arrivals_per_second is not None
    patience = max(0.0, view.work[-1].deadline - now - reserve(view))
    targets, left, gone = view.kept, kind.arrivals_per_second, 0
    for line in view.lines:
        needed = _filled(line, left / line.rate, patience)
        keep = min(line.ready, max(needed, 1 if line is view.lines[0] else 0))
        left = max(0.0, left - keep * line.rate)
        targets[line.key] -= line.ready - keep
        gone += line.ready - keep
    if not gone or gone == view.ready:
        return None
    words = f"{kind.arrivals_per_second:.3g} images a second need {view.ready - gone} of {view.ready} nodes"
    return targets, f"{words}, the queue is short ({view.work[-1].images}): {gone} can go"


def _filled(line: Line, nodes: float, patience: float) -> int:
    """Whole nodes for a load of so many; the last, partly used one only if it idles for less than a boot costs."""
    whole = int(nodes)
    return whole + (1 if (1.0 - (nodes - whole)) * patience <= line.boot.p50 else 0)


def reserve(view: View) -> float:
    """Seconds before a deadline by which a node must be ordered at the latest, its work not counted."""
    boot = max((line.boot.p95 for line in view.lines if not line.why_not), default=0.0)
    return 2 * boot + view.limits.fallback + view.limits.margin


def rest(view: View) -> Verdict:
    """Without work: hold idle nodes up to their break-even, else let all go."""
    held = _held(view)
    if held:
        return held
    there = {line.key: 0 for line in view.lines}
    busy = view.ready + view.coming
    words = f"no {view.kind.kind} image waits or is in flight"
    words += f": {busy} nodes ready or coming can go" if busy else ": 0 nodes needed"
    return Verdict(targets=there, because=words)


def _held(view: View) -> Verdict | None:
    """A node is held while the next work comes sooner than its boot would cost, and could not wait for a boot."""
    boot = max((line.boot.p50 for line in view.lines if line.ready + line.coming), default=0.0)
    opening = [window.opens_at - view.now for window in view.kind.windows if window.opens_at > view.now]
    if boot and opening and min(opening) <= boot:
        there = f"holds {view.ready} nodes, {view.coming} come"
        words = f"a window opens in {seconds(min(opening))}, a boot takes {seconds(boot)}: {there}"
        return Verdict(targets=view.kept, because=words)
    if boot and (late := _opened_without_work(view)) is not None:
        words = f"a window opened {seconds(late)} ago and nothing has come yet: holds {view.ready} nodes"
        return Verdict(targets=view.kept, because=f"{words} up to {seconds(LATE_WINDOW)}")
    idle = 0.0 if view.idle_since is None else view.now - view.idle_since
    break_even = boot - max(0.0, view.limits.deadline - reserve(view))
    gap = view.kind.gap
    if gap is None or idle >= break_even or gap - view.kind.quiet >= break_even or view.kind.quiet > 3 * gap:
        return None
    words = f"more is expected every {seconds(gap)}: holds {view.ready} idle nodes up to {seconds(break_even)}"
    targets = {line.key: line.ready for line in view.lines}
    return Verdict(targets=targets, because=words, wait_until=view.now + break_even - idle)


def _opened_without_work(view: View) -> float | None:
    """Seconds since a window opened whose images were not seen yet; None: no such window."""
    since = [view.now - window.opens_at for window in view.kind.windows]
    open_now = [late for late in since if 0 <= late < LATE_WINDOW and view.kind.quiet > late]
    return min(open_now, default=None)


def warmed(view: View, verdict: Verdict) -> Verdict:
    """The verdict with nodes for the next window, where a warm start is cheaper than a cold one or the only way."""
    ahead = sorted((w for w in view.kind.windows if w.opens_at > view.now), key=lambda window: window.opens_at)
    longest = max((line.boot.p95 for line in view.lines), default=0.0)
    if not ahead or not view.lines:
        return verdict
    opens = ahead[0].opens_at
    if opens - view.now > longest:
        return _waiting(verdict, opens - longest)
    return _warm(view, verdict, [window for window in ahead if window.opens_at == opens])


def _warm(view: View, verdict: Verdict, windows: list[Window]) -> Verdict:
    opens, images = windows[0].opens_at, sum(window.images for window in windows)
    if view.work:
        images += max(0, round(view.work[-1].images - at_hand(view.lines, opens, view.now)))
    work = [Load(min(window.deadline for window in windows), images)]
    warm_wish = Wish(work=work, limits=view.limits, start=view.now, now=view.now, not_before=opens)
    cold_wish = Wish(work=work, limits=view.limits, start=opens, now=view.now, not_before=opens)
    warm, cold = choose(view.lines, warm_wish, view.room), choose(view.lines, cold_wish, view.room)
    if not warm.nodes or (warm.cost >= cold.cost * WORTH_WARMING and round(warm.lacking) >= round(cold.lacking)):
        return _waiting(verdict, opens)
    order_at = opens - max(line.boot.p50 for line, _ in warm.adds)
    if view.now < order_at:
        return _waiting(verdict, order_at)
    bought, words = take(view, warm)
    added = {key: bought[key] - kept for key, kept in view.kept.items()}
    targets = {key: target + added[key] for key, target in verdict.targets.items()}
    because = f"a window with {images} images opens in {seconds(opens - view.now)}: {words} ({cold.nodes} if cold)"
    return Verdict(targets=targets, because=f"{verdict.because}; {because}", said=warm.said)


def _waiting(verdict: Verdict, until: float) -> Verdict:
    """The verdict, to be looked at again by then."""
    if verdict.wait_until is not None and verdict.wait_until <= until:
        return verdict
    return msgspec.structs.replace(verdict, wait_until=until)
