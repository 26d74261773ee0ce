"""The table, its marks, the comparison with another run, and what happens with a benchmark that gives nothing."""

import json
import sys
from pathlib import Path

import compare
import measures
import msgspec
import pytest
import run_all
from results import Machine, Ran, Results, Row, decode, encode, summary, table


def row(measure: str = "speed", **changes) -> Row:
    known = {"benchmark": "convert", "direction": "at least", "unit": "×", "value": 20.0, "mark": 20.0}
    return Row(measure=measure, **known | changes)


def results(*rows: Row, error: str = "", **changes) -> Results:
    ran = Ran(name="convert", command="python convert_bench.py", seconds=1.0, others_cores=0.0, error=error)
    machine = Machine(processor="P", cores=2, memory_gib=4.0, system="Debian", python="3.11.7")
    known = {"written": "2026-01-01T00:00:00+00:00", "commit": "abc", "seconds": 1.0, "machine": machine}
    known |= {"versions": {"numpy": "2"}, "benchmarks": [ran], "rows": list(rows)}
    return Results(**known | changes)


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({"value": 20.0}, True),
        ({"value": 19.99}, False),
        ({"value": 19.99, "direction": "at most"}, True),
        ({"value": 20.01, "direction": "at most"}, False),
        ({"value": None}, False),
        ({"value": float("nan")}, False),
        ({"mark": None}, None),
        ({"value": 5.0, "ratio": 21.0, "of": "ratio"}, True),
        ({"value": 50.0, "ratio": 19.0, "of": "ratio"}, False),
    ],
)
def test_a_mark_is_reached_by_the_figure_it_is_for(changes, reached):
    assert row(**changes).reached is reached


def test_the_table_tells_peer_ratio_mark_and_verdict():
    rows = [row(value=48.0, unit="ms", peer="Pillow", ratio=26.05, mark=25.0, of="ratio"), row("bytes", value=1.2)]
    first, second = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows).splitlines()[2:]]
    assert first == ["convert", "speed", "48 ms", "Pillow", "26.05", "≥ 25", "reached", ""]
    assert second == ["convert", "bytes", "1.2 ×", "", "", "≥ 20 ×", "falls short", ""]
    assert len({line.rindex("|", 0, -1) for line in table(rows).splitlines()}) == 1


def test_results_are_kept_whole_with_verdicts_for_other_readers():
    kept = results(row(), row("bytes", value=1.0))
    assert decode(encode(kept)) == kept
    assert [one["reached"] for one in json.loads(encode(kept))["rows"]] == [True, False]


def test_the_summary_counts_marks_and_names_what_falls_short_or_is_broken():
    said = summary(results(row(), row("bytes", value=1.0), row("free", mark=None), error="exit code 1"))
    assert "1 of 2 marks reached" in said
    assert "falls short: convert: bytes" in said
    assert "BROKEN: convert: exit code 1" in said


@pytest.mark.parametrize(
    ("before", "now", "direction", "verdict"),
    [
        (20.0, 20.9, "at least", "same"),
        (20.0, 22.0, "at least", "better"),
        (20.0, 18.0, "at least", "WORSE"),
        (20.0, 18.0, "at most", "better"),
        (20.0, 22.0, "at most", "WORSE"),
        (0.0, 22.0, "at most", "same"),  # of nothing there is no share
    ],
)
def test_a_change_is_judged_by_what_is_better(before, now, direction, verdict):
    then, found = (results(row(value=value, direction=direction)) for value in (before, now))
    (change,) = compare.changes(then, found)
    assert change.verdict == verdict


def test_a_lost_mark_is_said_but_is_no_error():
    said, code = compare.said(results(row(value=20.5)), results(row(value=19.5)))
    assert "Mark lost: convert: speed" in said
    assert "reached → falls short" in said
    assert code == 0


def test_what_is_gone_or_new_is_said_and_gone_is_an_error():
    said, code = compare.said(results(row("old")), results(row("fresh")))
    assert "1 new, 1 gone" in said
    assert code == 1


def test_the_same_measure_beside_two_peers_is_two_measures():
    rows = [row(peer="OpenCV"), row(peer="pyvips")]
    assert len(compare.changes(results(*rows), results(*rows))) == 2


def test_a_benchmark_that_was_not_run_or_is_broken_is_said_and_is_an_error():
    said, code = compare.said(results(row()), results(benchmarks=[]))
    assert "MISSING: convert was not run" in said
    assert code == 1
    said, code = compare.said(results(row()), results(row(), error="exit code 3"))
    assert "MISSING: convert: exit code 3" in said
    assert code == 1


def test_another_machine_or_library_is_said():
    now = results(row(), versions={"numpy": "3"})
    assert "numpy: 2 → 3" in compare.said(results(row()), now)[0]


def benchmark(tmp_path: Path, script: str | None, limit_seconds: float = 30.0) -> run_all.Benchmark:
    path = tmp_path / "fake_bench.py"
    if script is not None:
        path.write_text(script)
    return run_all.Benchmark(name="fake", script=path, rows=measures.inferencer, limit_seconds=limit_seconds)


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[-1]).write_text({text!r})"
GOOD = {"rows": [{"what": "12 MP: CPU", "value": 67.0, "unit": "ms", "mark": "≤ 80", "verdict": "", "note": ""}]}


def test_a_benchmark_that_runs_gives_its_rows(tmp_path):
    found = benchmark(tmp_path, WRITES.format(text=json.dumps(GOOD)))
    ran, rows = run_all.measured(found, tmp_path / "out")
    assert ran.error == ""
    assert [(one.measure, one.value, one.mark, one.direction) for one in rows] == [
        ("12 MP: CPU", 67.0, 80.0, "at most")
    ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (None, "exit code 2"),
        ("raise ValueError('no board')", "exit code 1; ValueError: no board"),
        ("pass", "wrote no fake.json"),
        (WRITES.format(text="{"), "could not be read: JSONDecodeError"),
        (WRITES.format(text='{"rows": [{}]}'), "could not be read: KeyError"),
        (WRITES.format(text='{"rows": []}'), "has no figures"),
    ],
)
def test_a_missing_or_broken_benchmark_says_why_and_gives_no_rows(tmp_path, script, error):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "fake.json").write_text(json.dumps(GOOD))  # of a run before: must not pass for this one's
    ran, rows = run_all.measured(benchmark(tmp_path, script), folder)
    assert error in ran.error
    assert rows == []


def test_a_benchmark_that_hangs_may_stop_its_servers_and_is_ended(tmp_path):
    script = f"""
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    time.sleep(60)
finally:
    pathlib.Path({str(tmp_path / "stopped")!r}).touch()
"""
    ran, _ = run_all.measured(benchmark(tmp_path, script, limit_seconds=1.0), tmp_path / "out")
    assert "not done after 1 s" in ran.error
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize(("script", "code"), [(WRITES.format(text=json.dumps(GOOD)), 0), ("raise SystemExit(5)", 1)])
def test_the_exit_code_tells_whether_all_gave_figures(tmp_path, monkeypatch, capsys, script, code):
    monkeypatch.setattr(run_all, "USUAL", (benchmark(tmp_path, script),))
    monkeypatch.setattr(run_all, "OUT", tmp_path)
    monkeypatch.setattr(run_all, "TIMELINE", tmp_path / "timeline.json")
    assert run_all.main(["--out", str(tmp_path / "results.json")]) == code
    assert ("BROKEN: fake" in capsys.readouterr().out) == bool(code)
    kept = decode((tmp_path / "results.json").read_bytes())
    assert kept.machine.cores >= 1
    assert kept.rows[-1].measure == "make bench, from first to last"
    assert "numpy" in kept.versions


def test_a_part_never_writes_over_what_is_committed():
    parser = run_all.parser()
    for arguments in (["--only", "vision"], ["--quick"], ["--long", "--only", "servicebus"]):
        assert "out" in run_all.destination(parser.parse_args(arguments)).relative_to(run_all.ROOT).parts
    assert run_all.destination(parser.parse_args([])) == run_all.ROOT / "benchmarks/results.json"


@pytest.mark.parametrize("name", ["inferencer", "vision", "validation", "servicebus"])
def test_every_committed_file_of_a_benchmark_has_rows_with_names_of_their_own(name):
    file = run_all.ROOT / "benchmarks" / f"{name}.json"
    rows = measures.READERS[name](json.loads(file.read_text()))
    names = [(one.measure, one.peer) for one in rows]
    assert len(names) == len(set(names)) > 3
    assert any(one.mark is not None for one in rows)
    assert all(one.figure is not None for one in rows)


def test_conversions_are_rows_against_pillow_and_the_others():
    way = {"cpu_ms": 20.0, "times_faster": 26.0, "bytes": 1.09}
    others = {"OpenCV": {"cpu_ms": 60.0, "times_faster": 8.0, "bytes": 1.2}}
    ours = dict.fromkeys(("Pillow", "fusebus", "fusebus --small", "fusebus WebP"), way)
    bulk = {"files": 100, "converted": 99, "failed": 1, "complete": True, "exit_code": 1, "per_second": 90.0}
    bulk |= {"again_skipped": 99, "workers": 2, "rss_mb_after_a_tenth": 80, "rss_mb_at_the_end": 81}
    rows = measures.convert({"figures": {"photograph 2 MP": ours | others}, "bulk": bulk})
    found = {(one.measure, one.peer): one for one in rows}
    speed = found["photograph 2 MP to PNG: × faster, CPU", "Pillow save('PNG')"]
    assert (speed.ratio, speed.mark, speed.reached) == (26.0, 25.0, True)
    assert found["photograph 2 MP to PNG: × faster, CPU", "OpenCV"].ratio == 3.25
    assert found["photograph 2 MP to PNG: its bytes", "Pillow save('PNG')"].reached
    assert found[
        "100 files of 0.3 MP, one in a hundred damaged: all others done, failures listed, nothing twice", ""
    ].reached


def test_a_queue_is_a_row_beside_the_fixed_share_and_what_it_loses_falls_short():
    run = {"workers": 4, "seconds": 4.0, "ratio": 1.1, "lost": 0, "finals_twice": 0, "begun_again": 1}
    runs = []
    for scenario, lost, told in (("all healthy", 0, 0), ("one killed", 9, 1)):
        runs.append(run | {"scenario": scenario, "way": "fixed share", "seconds": 6.0, "lost": lost})
        runs.append(run | {"scenario": scenario, "way": "queue", "finals_twice": told})
    healthy, killed, wrong = measures.scale({"rows": runs})
    assert (healthy.peer, healthy.ratio, healthy.figure) == ("fixed share", 1.5, 1.5)
    assert (killed.ratio, killed.figure) == (None, 4.0)
    assert "never: 9 pictures lost" in killed.note
    assert (wrong.value, wrong.reached) == (1.0, False)


def test_a_file_of_something_else_is_refused():
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"rows": []}')


def test_rates_count_what_happens_in_a_second():
    import plots

    moments, rates = plots.rate([number / 10 for number in range(101)], 0.0, 10.0)
    assert moments[0] == 0.0
    assert moments[-1] == pytest.approx(10.0)
    assert rates[50] == pytest.approx(10, abs=1.1)


def test_a_sampled_run_is_drawn(tmp_path):
    import plots

    times = [100 + number / 10 for number in range(50)]
    samples = [(time, 24, [8, 2, 8, 2, 1], [9, 0, 0, 0, 0]) for time in times]
    timeline = {
        "what": "model of 30 ms",
        "model_seconds": 0.03,
        "calls": [(100.0, 100.03, 1)],
        "finals": times,
        "stages": [("download", 8), ("decode", 2), ("model", 8), ("annotate", 2), ("upload", 8)],
        "samples": samples,
        "depths": [(time, 50 - number) for number, time in enumerate(times)],
    }
    paths = plots.draw(timeline, tmp_path)
    assert [path.name for path in paths] == ["rate.png", "stages.png", "queue.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    with pytest.raises(ValueError, match="no samples"):
        plots.draw(timeline | {"samples": []}, tmp_path)


def test_a_profiler_that_is_not_there_is_named(monkeypatch):
    import flame_graph

    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="py-spy"):
        flame_graph.under_py_spy(Path("worker.svg"))


def test_a_flame_graph_has_a_title_that_fits_in_place_of_its_command():
    import flame_graph

    svg = '<text id="title" x="50%">py-spy record -- worker</text><text id="details">all</text>'
    named = flame_graph.titled(svg, "one worker")
    assert named == '<text id="title" x="50%">one worker</text><text id="details">all</text>'
