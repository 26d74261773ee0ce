"""The command `fusebus-localbatch`: serve until SIGTERM or Ctrl-C; `fusebus-localbatch fault` disturbs a server."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fusebus.localbatch import fault_command
from fusebus.localbatch.limits import AccountLimits
from fusebus.localbatch.server import METADATA_VARIABLE, LocalBatch, LocalBatchOptions

DESCRIPTION = """\
Azure Batch on one machine: nodes that boot for a set time, tasks that run as processes.
`fusebus-localbatch fault --help` tells how to disturb a server that runs."""
EPILOG = """\
example:
  fusebus-localbatch --port 0 --boot-seconds 2 --work-dir /tmp/batch --capacity 4
  prints one line when it is ready, e.g.  ready http://127.0.0.1:40123
  fusebus-localbatch fault --url http://127.0.0.1:40123 preempt --pool gpu

exit codes:
  0  stopped by SIGTERM or Ctrl-C; all tasks have ended
  1  could not start (the port is taken, the folder cannot be written)
  2  wrong usage
"""


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _positive(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _quota(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, not negative")
    return int(text)


def _family(text: str) -> tuple[str, int]:
    name, _, cores = text.partition("=")
    if not name or not cores.isdecimal():
        raise argparse.ArgumentTypeError("is FAMILY=CORES, e.g. standardNCASv3_T4Family=8")
    return name, int(cores)


# Options that are limits of the account: their name is the field's.
_LIMITS: tuple[tuple[str, Callable[[str], object], str, str], ...] = (
    ("boot_seconds", _not_negative, "S", "from a resize until its nodes are idle: the median"),
    ("boot_spread", _not_negative, "SIGMA", "of the log-normal distribution of boots; 0: all alike"),
    ("seed", int, "N", "of all that is drawn by chance"),
    ("reboot_seconds", _not_negative, "S", "of a restart"),
    ("resize_timeout_seconds", _positive, "S", "of a resize that does not say"),
    ("minimum_resize_timeout_seconds", _not_negative, "S", "a shorter one is refused"),
    ("spot_lifetime_seconds", _positive, "S", "mean life of a Spot node until it is evicted"),
    ("notice_seconds", _not_negative, "S", "between the notice of such an eviction and the end"),
    ("preempted_seconds", _not_negative, "S", "until a preempted node gets another machine"),
    ("retention_seconds", _not_negative, "S", "of the files of an ended task that does not say"),
    ("capacity", _quota, "N", "quota of nodes: above it a resize reports an error"),
    ("dedicated_cores", _quota, "N", "quota of dedicated cores"),
    ("spot_cores", _quota, "N", "quota of Spot cores"),
    ("requests_per_second", _positive, "R", "of ARM and of the data plane each; above it 429"),
)


def _parser() -> argparse.ArgumentParser:
    defaults = AccountLimits()
    parser = argparse.ArgumentParser(
        "fusebus-localbatch", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    host_help = "name or address to listen on (default 127.0.0.1); whoever reaches it can run commands here"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host_help)
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--work-dir", type=Path, required=True, metavar="DIR", help="task output: DIR/tasks/JOB/TASK")
    parser.add_argument("--location", default="local", help="region that the account tells (default local)")
    variable = f"tell tasks the URL of their node's metadata also in NAME, not only in {METADATA_VARIABLE}"
    parser.add_argument("--metadata-variable", default="", metavar="NAME", help=variable)
    grace = defaults.terminate_grace_seconds
    grace_help = f"between SIGTERM and SIGKILL of a task (default {grace:g})"
    parser.add_argument("--grace-seconds", type=_not_negative, default=grace, metavar="S", help=grace_help)
    family_help = "quota of dedicated cores of a VM family; repeatable"
    parser.add_argument("--family-cores", type=_family, action="append", default=[], metavar="F=N", help=family_help)
    for name, kind, metavar, text in _LIMITS:
        default = getattr(defaults, name)
        told = "none" if default is None else f"{default:g}"
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default {told})")
    return parser


def _options(arguments: list[str]) -> LocalBatchOptions:
    given = _parser().parse_args(arguments)
    limits = AccountLimits(
        terminate_grace_seconds=given.grace_seconds,
        family_cores=dict(given.family_cores),
        **{name: getattr(given, name) for name, *_ in _LIMITS},
    )
    return LocalBatchOptions(
        host=given.host,
        port=given.port,
        work_dir=given.work_dir,
        limits=limits,
        location=given.location,
        metadata_variable=given.metadata_variable,
    )


async def _serve(options: LocalBatchOptions) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with LocalBatch(options) as batch:
        print(f"ready {batch.url}", flush=True)
        await stopped.wait()


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["fault"]:
        return fault_command.main(arguments[1:])
    options = _options(arguments)
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        print(f"fusebus-localbatch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
