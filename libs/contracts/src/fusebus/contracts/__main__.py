"""`python -m fusebus.contracts broker|emulator`: the topology as our broker or Microsoft's emulator reads it."""

from __future__ import annotations

import json
import sys

from fusebus.contracts.emulator import emulator_configuration
from fusebus.contracts.topology import broker_configuration

USAGE = """usage: python -m fusebus.contracts broker|emulator

Prints the topology as JSON: for fusebus-servicebus --config, or as config.json of Microsoft's Service Bus emulator.

Example: python -m fusebus.contracts emulator > deploy/docker/emulator/config.json
Exit codes: 0 printed, 2 usage."""
EXIT_USAGE = 2


def main(arguments: list[str]) -> int:
    """The exit code."""
    known = {"broker": broker_configuration, "emulator": emulator_configuration}
    if len(arguments) != 1 or arguments[0] not in known:
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    print(json.dumps(known[arguments[0]](), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
