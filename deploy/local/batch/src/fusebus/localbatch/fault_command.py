"""The command `fusebus-localbatch fault`: injects a fault into a local Batch that runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from fusebus.localbatch.fault_kinds import KINDS, Kind

URL_VARIABLE = "FUSEBUS_LOCALBATCH_URL"
ANSWER_SECONDS = 30.0
DESCRIPTION = "Inject a fault into a local Batch that runs, see what is in force, or end it all."
EPILOG = """\
example:
  fusebus-localbatch fault --url http://127.0.0.1:40123 preempt --pool gpu --count 2 --notice 30
  fusebus-localbatch fault --url http://127.0.0.1:40123 market --size Standard_NC4as_T4_v3 --spot 0
  fusebus-localbatch fault --url http://127.0.0.1:40123 throttle --plane arm --next 3 --retry-after 5
  fusebus-localbatch fault --url http://127.0.0.1:40123 list
  fusebus-localbatch fault --url http://127.0.0.1:40123 clear

exit codes:
  0  done; what was hit is printed as JSON
  1  the server refused, or there is none
  2  wrong usage
"""


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    if not given.url:
        _complain(f"--url or {URL_VARIABLE} must say where the server is")
        return 2
    method, body = {"list": ("GET", None), "clear": ("DELETE", None)}.get(given.fault, ("POST", _order(given)))
    try:
        answer = _call(method, f"{given.url.rstrip('/')}/local/faults", body)
    except urllib.error.HTTPError as error:
        _complain(f"{_reason(error)}")
        return 1
    except (OSError, ValueError) as error:
        _complain(f"no local Batch at {given.url}: {error}")
        return 1
    if answer:
        sys.stdout.write(json.dumps(json.loads(answer), indent=2) + "\n")
    return 0


def _complain(what: str) -> None:
    sys.stderr.write(f"fusebus-localbatch fault: {what}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fusebus-localbatch fault",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    where = f"of the server, as its line `ready` says (default: {URL_VARIABLE})"
    parser.add_argument("--url", default=os.environ.get(URL_VARIABLE, ""), help=where)
    faults = parser.add_subparsers(dest="fault", required=True, metavar="FAULT")
    for kind in KINDS.values():
        _add(faults, kind)
    faults.add_parser("list", help="what is in force")
    faults.add_parser("clear", help="end everything that lasts; a changed quota goes back too")
    return parser


def _add(faults: Any, kind: Kind) -> None:
    parser = faults.add_parser(kind.name, help=kind.help, description=kind.help)
    for field in kind.fields:
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.kind,
            required=field.required,
            choices=field.choices or None,
            help=field.help,
        )


def _order(given: argparse.Namespace) -> bytes:
    fields = {name: value for name, value in vars(given).items() if name != "url" and value is not None}
    return json.dumps(fields).encode()


def _call(method: str, url: str, body: bytes | None) -> bytes:
    if not url.startswith("http://"):
        raise ValueError("a local Batch is at http://127.0.0.1:PORT")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine: no proxy
    with opener.open(request, timeout=ANSWER_SECONDS) as answer:
        content: bytes = answer.read()
        return content


def _reason(error: urllib.error.HTTPError) -> str:
    """The server's own sentence."""
    try:
        return str(json.loads(error.read())["message"]["value"])
    except (ValueError, KeyError, TypeError):
        return str(error)
