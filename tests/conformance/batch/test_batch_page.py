"""What docs/local-batch.md says is run, and its tables name what there is."""

import asyncio
import re
from pathlib import Path
from typing import Any

from fusebus.localbatch.fault_kinds import KINDS

PAGE = (Path(__file__).parents[3] / "docs" / "local-batch.md").read_text()


async def test_the_example_of_the_page_runs(start_batch: Any) -> None:
    place = await start_batch()
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    await asyncio.to_thread(exec, example, {"url": place.server.url})
    await place.task_is("one", "completed")
    assert await place.output("one") == "hello\n"


def test_the_page_has_every_fault_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| .*? \| (.*) \|$", PAGE, re.MULTILINE))
    assert list(rows) == list(KINDS)
    for name, kind in KINDS.items():
        told = f"{rows['throttle']} {rows[name]}" if "the same selection" in rows[name] else rows[name]
        missing = [field.name for field in kind.fields if not re.search(rf"\b{field.name}\b", told)]
        assert missing == [], name
