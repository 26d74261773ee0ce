"""What each benchmark's own file says, as rows of the one table. One function for each benchmark.

Only what has a peer or a mark is a row; the files have more. Marks stand beside the measuring: they are taken from
there, and only when they are needed, so that a benchmark that can't even be imported breaks no other's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from results import Direction, Row

Figures = dict[str, Any]
PEERS = {"OpenCV": "OpenCV", "pyvips": "pyvips", "ImageMagick": "ImageMagick 6 (Debian)"}
FILE_SIZE = re.compile(r" \((\d+(?:\.\d+)? MB)\)")
RATE = re.compile(r"^(\d+(?:\.\d+)?) (?:images/s|against)")
SQUEEZED = re.compile(r": (\d+(?:\.\d+)?) dB$")
MARK = re.compile(r"([≥≤])\s*(\d+(?:\.\d+)?)")


def marked(text: str) -> tuple[float | None, Direction]:
    """`≥ 8 ×` is (8.0, "at least"); what has no mark wants less."""
    found = MARK.search(text)
    if found is None:
        return None, "at most"
    return float(found[2]), "at least" if found[1] == "≥" else "at most"


# JPEG to PNG


def convert(figures: Figures) -> list[Row]:
    """Ours against Pillow, marked; against the others; and many files through the command."""
    rows = [row for name, table in figures["figures"].items() for row in _conversions(name, table)]
    return rows + (_bulk(figures["bulk"]) if figures["bulk"] else [])


def _conversions(picture: str, table: dict[str, dict[str, float]]) -> Iterator[Row]:
    from convert_bench import BYTES_MARK, SMALL_BYTES_MARK, SMALL_SPEED_MARK, SPEED_MARKS

    size = " ".join(picture.split()[-2:])
    ways: tuple[tuple[str, str, float | None, float | None], ...] = (
        ("PNG", "fusebus", SPEED_MARKS[size], BYTES_MARK),
        ("PNG --small", "fusebus --small", SMALL_SPEED_MARK, SMALL_BYTES_MARK),
        ("lossless WebP", "fusebus WebP", None, None),
    )
    for kind, way, speed_mark, bytes_mark in ways:
        yield from _beside_pillow(f"{picture} to {kind}", table[way], speed_mark, bytes_mark)
    for way, peer in PEERS.items():
        if way in table:
            yield _beside(picture, table["fusebus"], table[way], peer)


def _beside_pillow(
    what: str, ours: dict[str, float], speed_mark: float | None, bytes_mark: float | None
) -> Iterator[Row]:
    yield Row(
        benchmark="convert",
        measure=f"{what}: × faster, CPU",
        direction="at least",
        unit="ms",
        value=ours["cpu_ms"],
        peer="Pillow save('PNG')",
        ratio=ours["times_faster"],
        mark=speed_mark,
        of="ratio",
    )
    yield Row(
        benchmark="convert",
        measure=f"{what}: its bytes",
        direction="at most",
        peer="Pillow save('PNG')",
        ratio=ours["bytes"],
        mark=bytes_mark,
        of="ratio",
    )


def _beside(picture: str, ours: dict[str, float], other: dict[str, float], peer: str) -> Row:
    return Row(
        benchmark="convert",
        measure=f"{picture} to PNG: × faster, CPU",
        direction="at least",
        unit="ms",
        value=ours["cpu_ms"],
        peer=peer,
        ratio=round(ours["times_faster"] / other["times_faster"], 2),
        of="ratio",
        note=f"{ours['bytes'] / other['bytes']:.3f} of its bytes",
    )


def _bulk(bulk: Figures) -> list[Row]:
    sound = bulk["converted"] + bulk["failed"]
    what = f"{bulk['files']} files of 0.3 MP, one in a hundred damaged"
    kept = f"{bulk['rss_mb_after_a_tenth']} MB after a tenth, {bulk['rss_mb_at_the_end']} MB at the end"
    return [
        Row(
            benchmark="convert",
            measure=f"{what}: all others done, failures listed, nothing twice",
            direction="at least",
            value=float(bulk["complete"] and sound == bulk["files"] and bulk["exit_code"] != 0),
            mark=1.0,
            note=f"{bulk['failed']} failed, exit code {bulk['exit_code']}, again: {bulk['again_skipped']} skipped",
        ),
        Row(
            benchmark="convert",
            measure=f"{what}: rate",
            direction="at least",
            unit="files/s",
            value=bulk["per_second"],
            note=f"{bulk['workers']} workers; {kept}",
        ),
    ]


# The inferencer


def inferencer(figures: Figures) -> list[Row]:
    """Its own rows; peers by name."""
    return [_inferencer_row(row) for row in figures["rows"]]


def _inferencer_row(row: Figures) -> Row:
    mark, direction = marked(row["mark"])
    what, value, peer, of_peer = row["what"], row["value"], "", False
    if "end-to-end ÷ model alone" in what:
        peer, of_peer, direction = "the model alone", True, "at least"
    elif "× sequential" in what:
        peer, of_peer, direction = "sequential loop", True, "at least"
    elif what.startswith("resident memory"):
        of_peer = True
    elif row["unit"] == "dB":
        direction = "at least"
    rate = RATE.search(row["note"]) if of_peer else None
    return Row(
        benchmark="inferencer",
        measure=what,
        direction=direction,
        unit="images/s" if rate else "" if of_peer else row["unit"],
        value=float(rate[1]) if rate else None if of_peer else value,
        peer=peer,
        ratio=value if of_peer else None,
        mark=mark,
        of="ratio" if of_peer else "value",
        note=row["note"],
    )


# Vision


def vision(figures: Figures) -> list[Row]:
    """Its own rows. A mark in × is one for the ratio, one in ms for ours, one in dB for what the name ends with."""
    return [_vision_row(row) for row in figures["marks"]]


def _vision_row(row: Figures) -> Row:
    mark, direction = marked(row["mark"])
    squeezed, file_size = SQUEEZED.search(row["what"]), FILE_SIZE.search(row["what"])
    what = FILE_SIZE.sub("", SQUEEZED.sub("", row["what"]))
    if squeezed:
        note = f"{row['ours_ms']:.3g} ms, {row['ratio']:.1f} × faster than {row['peer']}"
        return Row(
            benchmark="vision",
            measure=f"{what}: likeness to Pillow's bilinear",
            direction="at least",
            unit="dB",
            value=float(squeezed[1]),
            mark=mark,
            note=note,
        )
    of_ours = row["mark"].endswith(" ms")
    return Row(
        benchmark="vision",
        measure=f"{what}: CPU" if of_ours else f"{what}: × faster, CPU",
        direction=direction if of_ours else "at least",
        unit="ms",
        value=row["ours_ms"],
        peer=row["peer"].split(",")[0],
        ratio=row["ratio"],
        mark=mark,
        of="value" if of_ours else "ratio",
        note=f"file of {file_size[1]}" if file_size else "",
    )


# Validation


def validation(figures: Figures) -> list[Row]:
    """Its marks; the rate beside the same work without guards."""
    from validation_bench import CPU_MARK_MS, MEMORY_MARK_MB, P99_MARK_SECONDS, RATE_MARK

    costs, rates = figures["costs"], figures["rates"]
    peak = max(cost["peak_mb"] for name, cost in costs.items() if name != "all")

    def at_most(measure: str, value: float, unit: str, mark: float) -> Row:
        return Row(
            benchmark="validation", measure=measure, direction="at most", unit=unit, value=float(value), mark=mark
        )

    return [
        at_most("verdict up to 30 MP, 99th percentile", costs["all"]["p99_wall_s"], "s", P99_MARK_SECONDS),
        at_most("verdict up to 30 MP, 99th percentile, CPU", costs["all"]["p99_cpu_s"], "s", P99_MARK_SECONDS),
        at_most("verdict up to 30 MP, most memory", peak, "MB", MEMORY_MARK_MB),
        at_most("12 MP JPEG: CPU", costs["12 MP JPEG"]["cpu_ms"], "ms", CPU_MARK_MS),
        Row(
            benchmark="validation",
            measure="photos of 2 MP judged in guarded children",
            direction="at least",
            unit="photos/s",
            value=rates["guarded"],
            peer="the same unguarded",
            ratio=round(rates["guarded"] / rates["unguarded"], 3),
            mark=RATE_MARK,
        ),
    ]


def ingest(figures: Figures) -> list[Row]:
    """Its rate with the guards on, beside the same without."""
    from ingest_bench import RATE_MARK

    on, off = figures["guarded"], figures["unguarded"]
    spent = ", ".join(
        f"{name} {on[key]:.1f}"
        for name, key in (
            ("ingest", "ingest_ms"),
            ("its children", "children_ms"),
            ("storage", "storage_ms"),
            ("broker", "broker_ms"),
        )
    )
    return [
        Row(
            benchmark="ingest",
            measure="photos of 2 MP through ingest, storage and broker on the same 2 cores",
            direction="at least",
            unit="photos/s",
            value=on["photos_per_second"],
            peer="the same unguarded",
            ratio=round(on["photos_per_second"] / off["photos_per_second"], 3),
            mark=RATE_MARK,
            note=f"CPU ms a photo: {spent}; others {on['others_cores']:.2f} cores",
        )
    ]


# The broker


def servicebus(figures: Figures) -> list[Row]:
    """For each store the worst pattern against the SDK, the dearest against memory, and the best rates; size, churn."""
    rows = list(_speed(figures["speed"])) if "speed" in figures else []
    if "size" in figures:
        rows += _size(figures["size"])
    return rows + [_growth(churn) for churn in figures.get("churn", [])]


def _speed(patterns: list[Figures]) -> Iterator[Row]:
    from servicebus_bench import MARK_DURABLE, MARK_RATE, MARK_RATIO, MARKED_STORES

    for store in MARKED_STORES:
        of_store = [one for one in patterns if one["store"] == store]
        worst = max((one for one in of_store if one["sdk"]), key=lambda one: one["ratio"])
        yield Row(
            benchmark="servicebus",
            measure=f"{store}: CPU a message ÷ the SDK's, worst pattern",
            direction="at most",
            unit="µs",
            value=round(worst["broker_us"], 2),
            peer="azure-servicebus",
            ratio=round(worst["ratio"], 4),
            mark=MARK_RATIO,
            of="ratio",
            note=worst["pattern"],
        )
        if store != "memory":
            dearest = max(of_store, key=lambda one: one["of_memory"])
            yield Row(
                benchmark="servicebus",
                measure=f"{store}: CPU a message ÷ without a disk, worst pattern",
                direction="at most",
                unit="µs",
                value=round(dearest["broker_us"], 2),
                peer="the broker in memory",
                ratio=round(dearest["of_memory"], 4),
                mark=MARK_DURABLE,
                of="ratio",
                note=dearest["pattern"],
            )
        for client in ("pipelined", "rhea"):
            if fast := [one for one in of_store if one["pattern"].startswith(client)]:
                best = max(fast, key=lambda one: one["per_core"])
                yield Row(
                    benchmark="servicebus",
                    measure=f"{store}: messages of 1 KB a second and core, {client}, best pattern",
                    direction="at least",
                    unit="messages/s",
                    value=round(best["per_core"]),
                    mark=float(MARK_RATE),
                    note=best["pattern"],
                )


def _size(size: Figures) -> list[Row]:
    what = {
        "with_receivers_megabytes": f"with {size['receivers']} receivers",
        "full_megabytes": f"with {size['queued']} messages of 1 KB waiting",
        "after_drain_megabytes": "once all are gone",
    }
    return [
        Row(
            benchmark="servicebus",
            measure=f"resident memory {name}",
            direction="at most",
            unit="MB",
            value=round(size[key], 1),
        )
        for key, name in what.items()
    ]


def _growth(churn: Figures) -> Row:
    from servicebus_growth import MARK_GROWTH

    slope, margin = churn["slope_megabytes_per_hour"], churn["confidence_95_megabytes_per_hour"]
    return Row(
        benchmark="servicebus",
        measure=f"{churn['store']}: growth at most, 95 % sure, connections come and go",
        direction="at most",
        unit="MB/h",
        value=round(slope + margin, 2),
        mark=MARK_GROWTH,
        note=f"{slope:.1f} ± {margin:.1f} in {churn['seconds']:.0f} s, {churn['messages']} messages",
    )


# Scale


def scale(figures: Figures) -> list[Row]:
    """Our queue beside a fixed share for each worker, case by case; and what it lost or told twice in all of them.

    The ratio is the fixed share's time to ours; there is none where it loses pictures and so never ends.
    """
    cases: dict[tuple[str, int], dict[str, Figures]] = {}
    for run in figures["rows"]:
        cases.setdefault((run["scenario"], run["workers"]), {})[run["way"]] = run
    wrong = sum(ways["queue"]["lost"] + ways["queue"]["finals_twice"] for ways in cases.values())
    again = sum(ways["queue"]["begun_again"] for ways in cases.values())
    runs = [_scale_row(scenario, workers, ways) for (scenario, workers), ways in cases.items()]
    return [
        *runs,
        Row(
            benchmark="scale",
            measure="pictures lost or told twice by the queue, in all cases",
            direction="at most",
            value=float(wrong),
            mark=0.0,
            note=f"{again} begun again after a kill",
        ),
    ]


def _scale_row(scenario: str, workers: int, ways: dict[str, Figures]) -> Row:
    queue, share = ways["queue"], ways["fixed share"]
    note = f"{queue['ratio']:.2f} × ideal; fixed share "
    note += f"never: {share['lost']} pictures lost" if share["lost"] else f"{share['ratio']:.2f} × ideal"
    return Row(
        benchmark="scale",
        measure=f"{workers} {'worker' if workers == 1 else 'workers'}, {scenario}: to the last picture",
        direction="at most" if share["lost"] else "at least",
        unit="s",
        value=round(queue["seconds"], 2),
        peer="fixed share",
        ratio=None if share["lost"] else round(share["seconds"] / queue["seconds"], 3),
        of="ratio" if not share["lost"] else "value",
        note=note,
    )


READERS = {
    "convert": convert,
    "inferencer": inferencer,
    "ingest": ingest,
    "scale": scale,
    "servicebus": servicebus,
    "validation": validation,
    "vision": vision,
}
