"""The command line's flags for the tier and for what clients may cost."""

from __future__ import annotations

import argparse
from dataclasses import fields

from fusebus.servicebus.bounds import ClientBounds
from fusebus.servicebus.tier import Tier

_HELP = {
    "handshake_seconds": "how long a connection may take to open",
    "idle_seconds": "announced to clients; one that is silent for twice as long is cut off; 0: never",
    "unread_bytes": "output a client may leave unread before nothing more is read from it",
    "unread_seconds": "how long a client may leave output unread before it is cut off",
    "held_bytes": "unfinished messages and answers without credit that are kept for one client",
    "connections": "how many may be open at once",
    "half_open_connections": "how many of them without a finished handshake; the oldest makes room",
    "unsettled_deliveries": "how many a receiver may have before it gets no more",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --tier and one --max-... for each bound."""
    parser.add_argument(
        "--tier",
        type=str.lower,
        choices=[tier.value.lower() for tier in Tier],
        default=Tier.STANDARD.value.lower(),
        help="sets the largest message: 256 KiB, or 1 MiB in premium (default: %(default)s)",
    )
    group = parser.add_argument_group("bounds on clients", "what exceeds one is cut off and logged")
    for bound in fields(ClientBounds):
        group.add_argument(
            _flag(bound.name),
            dest=bound.name,
            type=_seconds if bound.name.endswith("_seconds") else _count,
            default=bound.default,
            metavar="N",
            help=f"{_HELP[bound.name]} (default: %(default)s)",
        )


def tier_of(given: argparse.Namespace) -> Tier:
    """What --tier says."""
    return Tier(given.tier.capitalize())


def bounds_of(given: argparse.Namespace) -> ClientBounds:
    """What the other flags say."""
    return ClientBounds(**{bound.name: getattr(given, bound.name) for bound in fields(ClientBounds)})


def _flag(name: str) -> str:
    return "--max-" + name.replace("_", "-")


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("a time in seconds")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number above 0")
    return number
