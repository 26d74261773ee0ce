import json
import logging

from fusebus.host import log_fields
from fusebus.host.logs import JsonFormatter


def formatted(message: str, **extra: object) -> dict[str, object]:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "test", **extra})
    found: dict[str, object] = json.loads(JsonFormatter("ingest").format(record))
    return found


def test_lines_carry_the_ids_of_the_work_at_hand() -> None:
    with log_fields(upload="u1", run="r1"):
        line = formatted("seen")
    assert (line["upload"], line["run"], line["service"], line["message"]) == ("u1", "r1", "ingest", "seen")


def test_no_id_takes_the_place_of_what_the_line_says() -> None:
    with log_fields(message="m1", level="l1"):
        line = formatted("seen", service="s1")
    assert [line[key] for key in ("message", "level", "service")] == ["seen", "info", "ingest"]


def test_ids_end_with_their_work() -> None:
    with log_fields(upload="u1"):
        pass
    assert "upload" not in formatted("seen")


def test_signatures_and_keys_are_redacted() -> None:
    line = json.dumps(formatted("GET https://x/y?se=1&sig=canary%3D Bearer canary AccountKey=canary;x"))
    assert "canary" not in line


def test_a_line_break_in_a_name_stays_one_line() -> None:
    record = logging.makeLogRecord({"msg": 'name\n{"level":"error"}'})
    assert "\n" not in JsonFormatter("ingest").format(record)
