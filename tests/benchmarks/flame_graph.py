"""A flame graph of one inferencer at work, with a model that takes 30 ms: where its own processor time goes.

    python tests/benchmarks/flame_graph.py [SVG]

py-spy samples the worker from outside, each thread by itself, waiting ones left out; the figures of such a run are not
benchmarks. Where the kernel forbids a process to look into another one (`ptrace_scope` 2 and 3) it needs root.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path

from inferencer_rig import rig

SIZE, BOARDS, IMAGES = (1632, 1224), 40, 400
MODEL_MILLISECONDS = 30.0
SAMPLES_PER_SECOND = 100  # with more py-spy falls behind where the cores are busy


def under_py_spy(svg: Path) -> list[str]:
    """The command in front of the one to be sampled. Raises FileNotFoundError where there is no py-spy."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise FileNotFoundError("py-spy is not installed: `make setup` brings it")
    rate = str(SAMPLES_PER_SECOND)
    return [program, "record", "--format", "flamegraph", "--threads", "--rate", rate, "--output", str(svg), "--"]


def titled(svg: str, title: str) -> str:
    """The drawing with this title; py-spy's is its command line, wider than the picture."""
    return re.sub(r'(<text id="title"[^>]*>)[^<]*', lambda found: found[1] + title, svg, count=1)


async def profile(svg: Path) -> int:
    """One worker over some hundred photographs; how many it finished."""
    under = under_py_spy(svg)
    async with rig() as services:
        works = await services.photographs(SIZE, BOARDS)
        await services.send(works, IMAGES)
        diary = await services.run_worker(MODEL_MILLISECONDS, under=under)
    return len(diary["finals"])


def main() -> int:
    """Sample, write."""
    svg = Path(sys.argv[1] if len(sys.argv) > 1 else "out/bench/worker.svg")
    svg.parent.mkdir(parents=True, exist_ok=True)
    svg.unlink(missing_ok=True)
    done = asyncio.run(profile(svg))
    if not svg.exists() or done != IMAGES:
        print(f"no flame graph: {done} of {IMAGES} images done, {svg} {'is' if svg.exists() else 'is not'} there")
        return 1
    title = f"one inferencer, model of {MODEL_MILLISECONDS:.0f} ms, {IMAGES} photographs of 2 MP: CPU of each thread"
    svg.write_text(titled(svg.read_text(), title))
    print(f"{svg}: {done} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
