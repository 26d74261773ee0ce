"""The command `fusebus-localbatch`: serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from fusebus.localbatch.entities import AccountLimits
from fusebus.localbatch.server import LocalBatch, LocalBatchOptions

DESCRIPTION = "Azure Batch on one machine: nodes that boot for a set time, tasks that run as processes."
EPILOG = """\
example:
  fusebus-localbatch --port 0 --boot-seconds 2 --work-dir /tmp/batch --capacity 4
  prints one line when it is ready, e.g.  ready http://127.0.0.1:40123

exit codes:
  0  stopped by SIGTERM or Ctrl-C; all tasks have ended
  1  could not start (the port is taken, the folder cannot be written)
  2  wrong usage
"""


def _options(arguments: list[str] | None) -> LocalBatchOptions:
    defaults = AccountLimits()
    parser = argparse.ArgumentParser(
        "fusebus-localbatch", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0: a free one (default)")
    parser.add_argument("--work-dir", type=Path, required=True, metavar="DIR", help="task output: DIR/tasks/JOB/TASK")
    boot, grace = defaults.boot_seconds, defaults.terminate_grace_seconds
    boot_help = f"from a resize until its nodes are idle (default {boot:g})"
    parser.add_argument("--boot-seconds", type=_not_negative, default=boot, metavar="S", help=boot_help)
    grace_help = f"between SIGTERM and SIGKILL of a task (default {grace:g})"
    parser.add_argument("--grace-seconds", type=_not_negative, default=grace, metavar="S", help=grace_help)
    parser.add_argument("--capacity", type=int, metavar="N", help="quota of nodes: above it a resize reports an error")
    given = parser.parse_args(arguments)
    if given.capacity is not None and given.capacity < 0:
        parser.error("--capacity must not be negative")
    limits = AccountLimits(
        boot_seconds=given.boot_seconds, terminate_grace_seconds=given.grace_seconds, capacity=given.capacity
    )
    return LocalBatchOptions(port=given.port, work_dir=given.work_dir, limits=limits)


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must not be negative")
    return value


async def _serve(options: LocalBatchOptions) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with LocalBatch(options) as batch:
        print(f"ready {batch.url}", flush=True)
        await stopped.wait()


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        print(f"fusebus-localbatch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
