"""What the containers need before any service starts: keys, one settings file, the topology, containers and tables.

stack_settings.py write       keys (kept once made), /run/fusebus/settings.toml and topology.json
stack_settings.py emulator    the services' bus is Microsoft's emulator from now on
stack_settings.py telemetry   the services send their telemetry to the collector from now on
stack_settings.py room        exit code 1 where the bus is an emulator that does not admit the whole stack's connections
stack_settings.py provision   the results container and the ledger's tables
stack_settings.py host BROKER BLOBS TABLES CA_FILE    print settings for programs of this machine, outside of containers
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from healthy import answers  # lies beside this file

from fusebus.blobs import Blobs, BlobSettings
from fusebus.blobs.layout import RESULTS
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings

RUN = Path("/run/fusebus")
TEMPLATE = Path("/etc/fusebus/settings.toml")
BROKER_KEY = Path("/ca/sas.key")  # the broker keeps its authority beside it
ACCOUNT = "fusebuslocal"
AUTHORITY = "/ca/ca.pem"
EMULATOR_KEY = "SAS_KEY_VALUE"  # the emulator's only one, and no secret
EMULATOR = "amqp://emulator:5672"
EMULATOR_SECONDS = 300.0  # SQL Server has to start first
EMULATOR_CONNECTIONS = "FUSEBUS_EMULATOR_CONNECTIONS"  # how many it admits
CONNECTIONS = {"dispatcher": 51, "notifier": 17, "ingest": 17, "inferencer": 6}  # of one copy after work, as counted
COLLECTOR = "http://collector:4318"

Tables = dict[str, dict[str, Any]]


def write(run: Path = RUN, template: Path = TEMPLATE, broker_key: Path = BROKER_KEY) -> None:
    """Make what is missing; the template's changes since the last start come into force."""
    key = _kept(broker_key, lambda: secrets.token_urlsafe(32))
    storage_key = _kept(run / "azurite.key", lambda: base64.b64encode(secrets.token_bytes(64)).decode())
    tables = tomllib.loads(template.read_text(encoding="utf-8"))
    lock_seconds = tables.pop("topology", {}).get("lock_seconds")
    _write_private(run / "topology.json", json.dumps(broker_configuration(lock_seconds), indent=1))
    storage = storage_connection(storage_key, "azurite:10000", "azurite:10002")
    addresses: Tables = {
        "bus": {"connection": broker_connection(key, "broker:5672"), "ca_file": AUTHORITY},
        "blobs": {"connection": storage},
        "ledger": {"connection": storage},
    }
    _write_private(run / "settings.toml", toml(merged(tables, addresses)))


def change(tables: Tables, run: Path = RUN) -> None:
    """Put these over the settings that are there; several may do so at a time."""
    file = run / "settings.toml"
    with _locked(run):
        _write_private(file, toml(merged(tomllib.loads(file.read_text(encoding="utf-8")), tables)))


async def provision(run: Path = RUN) -> None:
    """What deployment does once for a new storage account; harmless where it is done."""
    connection = Secret(tomllib.loads((run / "settings.toml").read_text(encoding="utf-8"))["blobs"]["connection"])
    async with Blobs(BlobSettings(connection=connection)) as blobs:
        await blobs.create_container(RESULTS)
    async with Ledger(LedgerSettings(connection=connection)) as ledger:
        await ledger.create_tables()


def until_answering(address: str, limit_seconds: float) -> None:
    """Wait for a server; ends the process with 1 where it does not come."""
    deadline = time.monotonic() + limit_seconds
    while not answers(address):
        if time.monotonic() > deadline:
            sys.exit(f"stack_settings: {address} does not answer after {limit_seconds:.0f} s")
        time.sleep(1.0)


def room(admitted: int, run: Path = RUN) -> str:
    """Why the whole stack can't be started with an emulator that admits so many connections; empty where it can."""
    bus = tomllib.loads((run / "settings.toml").read_text(encoding="utf-8"))["bus"]
    if "sb://emulator;" not in bus["connection"] or admitted >= (wanted := sum(CONNECTIONS.values())):
        return ""
    parts = ", ".join(f"{name} {count}" for name, count in CONNECTIONS.items())
    return (
        f"Microsoft's emulator admits {admitted} connections, the whole stack holds {wanted} ({parts}). "
        "Start what fits: docker compose up -d inferencer. Where it admits more (behind a proxy that shares "
        f"connections), say how many in {EMULATOR_CONNECTIONS}."
    )


def for_host(broker: str, blobs: str, tables: str, authority: str, run: Path = RUN) -> str:
    """Settings with the published addresses, for `fusebus` on the machine itself; they hold the keys."""
    found = tomllib.loads((run / "settings.toml").read_text(encoding="utf-8"))
    inside = dict(part.split("=", 1) for part in found["bus"]["connection"].split(";") if part)
    storage_key = (run / "azurite.key").read_text(encoding="ascii").strip()
    storage = storage_connection(storage_key, blobs, tables)
    return toml(
        {
            "bus": {"connection": broker_connection(inside["SharedAccessKey"], broker), "ca_file": authority},
            "blobs": {"connection": storage},
            "ledger": {"connection": storage},
            "console": found.get("console", {}),
        }
    )


def broker_connection(key: str, address: str) -> str:
    """Of our broker and of Microsoft's emulator alike."""
    return (
        f"Endpoint=sb://{address};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey={key};"
        "UseDevelopmentEmulator=true"
    )


def storage_connection(key: str, blobs: str, tables: str) -> str:
    """Of Azurite, whose account stands in the path."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
        f"BlobEndpoint=http://{blobs}/{ACCOUNT};TableEndpoint=http://{tables}/{ACCOUNT};"
    )


def merged(below: Tables, above: Tables) -> Tables:
    """Section by section, what is above wins."""
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}


def toml(tables: Tables) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's as well; a mapping becomes an inline table."""

    def value(of: Any) -> str:
        if isinstance(of, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in of.items()) + "}"
        if isinstance(of, list):
            return "[" + ", ".join(value(inner) for inner in of) + "]"
        return json.dumps(of, ensure_ascii=False)

    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value(of)}\n" for key, of in table.items())
        for section, table in tables.items()
    )


def _kept(file: Path, make: Any) -> str:
    """The text of `file`, made where it is missing: a restart keeps everybody working."""
    if not file.exists():
        _write_private(file, make() + "\n")
    return file.read_text(encoding="ascii").strip()


def _write_private(file: Path, text: str) -> None:
    """Complete or not at all, and readable by the services' user alone."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="utf-8") as opened:
        opened.write(text)
    unfinished.replace(file)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    with (run / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    match arguments:
        case ["write"]:
            write()
        case ["emulator"]:
            until_answering(EMULATOR, EMULATOR_SECONDS)
            change({"bus": {"connection": broker_connection(EMULATOR_KEY, "emulator"), "ca_file": ""}})
        case ["telemetry"]:
            change({"telemetry": {"exporter": "otlp", "endpoint": COLLECTOR}})
        case ["room"]:
            sys.exit(room(int(os.environ[EMULATOR_CONNECTIONS])) or None)
        case ["provision"]:
            asyncio.run(provision())
        case ["host", broker, blobs, tables, authority]:
            print(for_host(broker, blobs, tables, authority), end="")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
