"""`fusebus simulate` as people call it."""

import json

import pytest
from click.testing import CliRunner

from fusebus.console.simulation import simulate


@pytest.fixture
def simulated():
    return lambda *words: CliRunner().invoke(simulate, words)


def test_a_scenario_is_shown_as_a_table(simulated):
    result = simulated("--scenario", "burst-100")
    assert result.exit_code == 0
    assert [line.split("|")[2].strip() for line in result.output.splitlines()[2:5]] == ["ours", "keda", "batch-formula"]


def test_json_says_what_was_missed(simulated):
    result = simulated("--scenario", "burst-1000", "--policy", "ours", "--json")
    found = json.loads(result.output)
    assert found["outcomes"][0]["hit_share"] == 1.0
    assert result.exit_code == (3 if found["missed"] else 0)


def test_no_mark_is_called_met_where_our_policy_did_not_run(simulated):
    result = simulated("--scenario", "burst-100", "--policy", "keda")
    assert result.exit_code == 0
    assert "met" not in result.output.split()
    assert result.output.splitlines()[-1] == "no mark was checked: they are our policy's, and it did not run"


def test_the_last_line_says_which_marks_were_checked(simulated):
    last = simulated("--scenario", "burst-100", "--policy", "ours").output.splitlines()[-1]
    assert last.startswith("every mark that was checked is met (1 scenario, no baseline ran to be compared with")


def test_insurance_is_dearer_without_a_storm_and_cheaper_where_spot_ends(simulated):
    def cost(scenario, *more):
        found = json.loads(simulated("--scenario", scenario, "--policy", "ours", "--json", *more).output)
        return found["outcomes"][0]["cost"]

    assert cost("metric-outage") > cost("metric-outage", "--insure", "0")
    assert cost("storm-stays") < cost("storm-stays", "--insure", "0") / 1.8


def test_decisions_and_pictures_are_given_when_asked_for(simulated, tmp_path):
    result = simulated("--scenario", "burst-100", "--policy", "ours", "--why", "--plots", str(tmp_path / "plots"))
    assert "buys 1 Spot" in result.output
    assert (tmp_path / "plots" / "burst-100.png").read_bytes().startswith(b"\x89PNG")


def test_a_trace_is_simulated(simulated, tmp_path):
    trace = tmp_path / "monday.csv"
    trace.write_text("at,images\n0,50\n600,50\n")
    result = simulated("--trace", str(trace), "--deadline", "1", "--policy", "ours")
    assert "| monday " in result.output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--scenario", "nonsense"), 2),
        (("--policy", "nonsense"), 2),
        (("--trace", "a.csv", "--scenario", "burst-100"), 2),
        (("--trace", "missing.csv"), 1),
        (("--list",), 0),
    ],
)
def test_exit_codes(simulated, words, code):
    assert simulated(*words).exit_code == code
