"""Every benchmark one after the other, each a process of its own; one table, one file, one exit code.

    python tests/benchmarks/run_all.py [--only NAME ...] [--quick | --long] [--profile] [--out FILE]

Prints each measure with its peer, its ratio, its mark and whether it is reached; draws one inferencer's run as PNGs;
writes benchmarks/results.json with the machine and the versions. Of a part (`--only`, `--quick`) the results go to
out/bench, where the benchmarks' own files and what they printed are, too. A mark that falls short is a figure; a
benchmark that gives none, or not in time, is an error: exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import measures
import msgspec
from machine import Others, commit, machine, versions
from results import Ran, Results, Row, summary, table, write

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
OUT = ROOT / "out" / "bench"
BUDGET_SECONDS = 900.0  # of all that `make bench` runs, on two cores
STOP_SECONDS = 20.0  # in which a benchmark that ran too long may stop its servers, before it is killed


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One script, how it is called, and how its file is read."""

    name: str
    script: Path
    rows: Callable[[dict[str, Any]], list[Row]]
    arguments: tuple[str, ...] = ()
    limit_seconds: float
    """After which it counts as hanging: three times and more what it takes on two quiet cores."""
    output_option: str = "--out"

    def command(self, folder: Path) -> list[str]:
        """Of a process that writes its file into this folder."""
        script, file = (os.path.relpath(path, ROOT) for path in (self.script, folder / f"{self.name}.json"))
        return [sys.executable, script, *self.arguments, self.output_option, file]


def _benchmark(name: str, limit_seconds: float, *arguments: str) -> Benchmark:
    option = "--output" if name in ("scale", "servicebus") else "--out"
    return Benchmark(
        name=name,
        script=HERE / f"{name}_bench.py",
        rows=measures.READERS[name],
        arguments=arguments,
        limit_seconds=limit_seconds,
        output_option=option,
    )


TIMELINE = OUT / "timeline.json"
USUAL = (
    _benchmark(
        "inferencer", 900, "--rounds", "3", "--memory-images", "1000", "--timeline", str(TIMELINE.relative_to(ROOT))
    ),
    _benchmark("convert", 600, "--runs", "7", "--files", "500"),
    _benchmark("scale", 500, "--pictures", "60"),
    _benchmark("vision", 300, "--runs", "7"),
    _benchmark("ingest", 400, "--photos", "300"),
    _benchmark("validation", 300, "--runs", "4", "--photos", "100", "--tries", "10"),
    _benchmark("servicebus", 400, "--only", "speed", "--scale", "0.2", "--starts", "2"),
)
QUICK = (
    _benchmark("inferencer", 300, "--quick", "--timeline", str(TIMELINE.relative_to(ROOT))),
    _benchmark("convert", 400, "--runs", "1", "--files", "100"),
    _benchmark("scale", 300, "--quick"),
    _benchmark("vision", 100, "--runs", "1"),
    _benchmark("ingest", 200, "--photos", "100"),
    _benchmark("validation", 100, "--runs", "2", "--photos", "20", "--tries", "1"),
    _benchmark("servicebus", 200, "--only", "speed", "--quick", "--starts", "1"),
)
LONG = (
    _benchmark("ingest", 900),
    _benchmark("inferencer", 3600, "--only", "memory"),
    _benchmark("convert", 1800, "--runs", "15", "--files", "5000"),
    _benchmark("scale", 1200),
    _benchmark("servicebus", 5400),
)


def measured(benchmark: Benchmark, folder: Path) -> tuple[Ran, list[Row]]:
    """Run it and read its file. Never raises: what went wrong is in `Ran.error`."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / f"{benchmark.name}.json", folder / f"{benchmark.name}.log"
    file.unlink(missing_ok=True)  # figures of a run before must not pass for this one's
    command = benchmark.command(folder)
    others, began = Others(), time.perf_counter()
    error = finished(command, benchmark.limit_seconds, log)
    seconds = time.perf_counter() - began
    rows: list[Row] = []
    if not error:
        rows, error = read(benchmark, file)
    ran = Ran(
        name=benchmark.name,
        command=shlex.join(["python", *command[1:]]),
        seconds=round(seconds, 1),
        others_cores=round(others.cores(seconds), 2),
        error=error,
    )
    return ran, rows


def finished(command: Sequence[str], limit_seconds: float, log: Path) -> str:
    """Run it to its end, its output into the log; what went wrong, or nothing."""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            return f"could not be started: {error}"
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            stopped(process)
            return f"not done after {limit_seconds:.0f} s; {log} says how far it came"
        except BaseException:  # Ctrl-C: it has a session of its own, which hears nothing of that
            stopped(process)
            raise
    return f"exit code {code}; {last_line(log)} ({log})" if code else ""


def stopped(process: subprocess.Popen[bytes]) -> None:
    """Let it stop its servers, as Ctrl-C would; then end all that is left of it."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(benchmark: Benchmark, file: Path) -> tuple[list[Row], str]:
    """The rows of its file; or none, and why."""
    try:
        rows = benchmark.rows(json.loads(file.read_text()))
    except FileNotFoundError:
        return [], f"wrote no {file.name}"
    except Exception as error:  # whatever another's file makes its reader do: the others' figures stay
        return [], f"{file.name} could not be read: {type(error).__name__}: {error}"
    return (rows, "") if rows else ([], f"{file.name} has no figures")


def last_line(log: Path) -> str:
    """Of what it printed; usually the exception."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"


def run(benchmarks: Sequence[Benchmark], folder: Path, say: Callable[[str], None]) -> Results:
    """All of them."""
    began, rans, rows = time.perf_counter(), [], []
    for benchmark in benchmarks:
        say(f"{benchmark.name} …")
        ran, found = measured(benchmark, folder)
        rans.append(ran)
        rows += found
        judged = [row for row in found if row.mark is not None]
        reached = f"{sum(bool(row.reached) for row in judged)} of {len(judged)} marks reached"
        say(f"{benchmark.name}: {ran.seconds:.0f} s, {'BROKEN: ' + ran.error if ran.error else reached}")
    return Results(
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        seconds=round(time.perf_counter() - began, 1),
        machine=machine(),
        versions=versions(),
        benchmarks=rans,
        rows=rows,
    )


def with_its_own_time(results: Results) -> list[Row]:
    """The rows, and one for how long all of it took."""
    own = Row(
        benchmark="all",
        measure="make bench, from first to last",
        direction="at most",
        unit="s",
        value=results.seconds,
        mark=BUDGET_SECONDS,
    )
    return [*results.rows, own]


def drawn(timeline: Path, folder: Path) -> str:
    """Plots of the inferencer's sampled run; why there are none, or nothing."""
    import plots

    if not timeline.exists():
        return ""
    try:
        paths = plots.draw(json.loads(timeline.read_text()), folder)
    except Exception as error:
        return f"{timeline.name} could not be drawn: {type(error).__name__}: {error}"
    print("plots: " + ", ".join(str(path.relative_to(ROOT)) for path in paths))
    return ""


def profiled(folder: Path) -> str:
    """A flame graph of a worker; why there is none, or nothing."""
    svg = folder / "worker.svg"
    error = finished([sys.executable, str(HERE / "flame_graph.py"), str(svg)], 300, folder / "profile.log")
    if not error:
        print(f"flame graph: {svg.relative_to(ROOT)}")
    return error


def chosen(given: argparse.Namespace) -> list[Benchmark]:
    """The benchmarks to run, in order."""
    plan = QUICK if given.quick else LONG if given.long else USUAL
    return [benchmark for benchmark in plan if not given.only or benchmark.name in given.only]


def destination(given: argparse.Namespace) -> Path:
    """benchmarks/ is for whole runs only: what is committed there must not lose what was left out."""
    if given.out is not None:
        return Path(given.out)
    if given.only or given.quick:
        return OUT / "results.json"
    return ROOT / "benchmarks" / ("results-long.json" if given.long else "results.json")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", nargs="+", choices=[benchmark.name for benchmark in USUAL], help="these alone")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a little of each: shows that it runs, marks mean nothing")
    size.add_argument("--long", action="store_true", help="what takes too long otherwise: full sizes, memory over time")
    made.add_argument("--profile", action="store_true", help="then run a worker under py-spy: out/bench/worker.svg")
    made.add_argument("--out", type=Path, help="the results, as JSON (default: benchmarks/results.json)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    given = parser().parse_args(arguments)
    # A shell's background job ignores it, and so would the benchmarks, which stop their servers when they hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    TIMELINE.unlink(missing_ok=True)
    results = run(chosen(given), OUT, lambda line: print(line, flush=True))
    errors = [drawn(TIMELINE, OUT)]
    if given.profile:
        errors.append(profiled(OUT))
    whole = not (given.only or given.quick or given.long)
    rows = with_its_own_time(results) if whole else results.rows
    results = msgspec.structs.replace(results, rows=rows)
    path = destination(given)
    write(results, path)
    print(f"\n{table(results.rows)}\n\n{summary(results)}")
    for error in errors:
        if error:
            print(f"BROKEN: {error}")
    print(f"Written to {path}")
    return 1 if results.broken or any(errors) else 0


if __name__ == "__main__":
    sys.exit(main())
