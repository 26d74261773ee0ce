"""The command line: `fusebus-servicebus` runs one broker until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fusebus.servicebus.broker import Broker, BrokerOptions
from fusebus.servicebus.config import ConfigError
from fusebus.servicebus.event_loop import LoopKind, new_loop
from fusebus.servicebus.flags import add_flags, bounds_of, tier_of
from fusebus.servicebus.store import Sync

USAGE, FAILED = 2, 1
DEFAULT_PORT = 5672
GC_THRESHOLDS = 20_000, 20, 20  # messages are no garbage: by default a twentieth of the time goes into looking at them
DEFAULT_CA_DIRECTORY = Path(".fusebus/servicebus")
EPILOG = """\
example:
  fusebus-servicebus --port 5672 --config topology.json
  fusebus-servicebus --port 0 --insecure      # a free port; any token is accepted

When ready, it prints two lines to standard output: the connection string, and the path of the CA certificate
that administration clients must trust (connection_verify=...). Everything else goes to standard error.

exit codes: 0 stopped by SIGTERM or Ctrl-C, 1 could not listen or write its files, 2 wrong arguments or configuration
"""


HINTS = """\
Trust the authority, which administration, TLS and WebSocket clients must:
  Python      connection_verify="{ca}"
  JavaScript  NODE_EXTRA_CA_CERTS={ca}
  Python over WebSocket  transport_type=TransportType.AmqpOverWebsocket, custom_endpoint_address="sb://localhost:{port}"
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="fusebus-servicebus",
        description="A Service Bus-compatible broker: AMQP, TLS and HTTP administration on one port.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0 picks a free one (default: %(default)s)")
    made.add_argument("--admin-port", type=_port, help="a second port, for administration tools that want their own")
    made.add_argument("--config", type=Path, metavar="FILE", help="JSON topology: queues, topics, subscriptions, rules")
    made.add_argument("--insecure", action="store_true", help="accept any token, signed or not, expired or not")
    made.add_argument(
        "--ca-dir",
        type=Path,
        metavar="DIR",
        default=DEFAULT_CA_DIRECTORY,
        help="certificate authority and key are kept here (default: %(default)s)",
    )
    made.add_argument(
        "--key",
        default=os.environ.get("FUSEBUS_SERVICEBUS_KEY"),
        help="shared access key (default: FUSEBUS_SERVICEBUS_KEY, or one made at the first start and kept in --ca-dir)",
    )
    made.add_argument(
        "--hide-key",
        action="store_true",
        help="print the connection string with *** for its key, for output that is kept as a log",
    )
    made.add_argument("--data", type=Path, metavar="DIR", help="keep everything there over restarts and crashes")
    made.add_argument(
        "--data-sync",
        type=Sync,
        choices=list(Sync),
        default=Sync.PROCESS,
        metavar="process|power",
        help="what acknowledged messages survive: the broker's own end, kill -9 included, or also the machine's, which"
        " waits for the disk at each commit (default: process)",
    )
    made.add_argument(
        "--event-loop",
        type=LoopKind,
        choices=list(LoopKind),
        default=LoopKind.AUTO,
        metavar="auto|uvloop|asyncio",
        help="auto takes uvloop where it is installed (default: auto)",
    )
    add_flags(made)
    made.add_argument("--faults", action="store_true", help="open POST /$faults, by which tests order failures")
    made.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    return made


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return number


async def serve(options: BrokerOptions, hide_key: bool = False) -> None:
    """Runs a broker until a signal comes."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Broker(options) as broker:
        gc.freeze()  # what a start leaves lives for ever
        gc.set_threshold(*GC_THRESHOLDS)
        shown = broker.connection_string
        print(shown.replace(broker.gateway.key, "***") if hide_key else shown)
        print(broker.ca_path, flush=True)
        print(HINTS.format(ca=broker.ca_path, port=broker.port), file=sys.stderr, flush=True)
        await stopped.wait()


def _allow_many_files() -> None:
    """Each connection is a file: as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; see --help."""
    given = parser().parse_args(arguments)
    _allow_many_files()
    logging.basicConfig(
        stream=sys.stderr, level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    options = BrokerOptions(
        host=given.host,
        port=given.port,
        admin_port=given.admin_port,
        topology=given.config,
        key=given.key,
        ca_directory=given.ca_dir,
        insecure=given.insecure,
        faults=given.faults,
        tier=tier_of(given),
        bounds=bounds_of(given),
        data=given.data,
        data_sync=given.data_sync,
    )
    try:
        with asyncio.Runner(loop_factory=lambda: new_loop(given.event_loop)) as runner:
            runner.run(serve(options, given.hide_key))
    except ConfigError as error:
        print(f"fusebus-servicebus: {given.config}: {error}", file=sys.stderr)
        return USAGE
    except (OSError, ModuleNotFoundError) as error:
        print(f"fusebus-servicebus: {error}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
