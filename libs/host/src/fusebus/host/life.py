"""From `python -m fusebus.<service>` to its exit code: help, settings, logs, signals, health."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import msgspec

from fusebus.host.health import Health, HealthSettings
from fusebus.host.logs import set_up_logs
from fusebus.host.redaction import redact
from fusebus.host.settings import SettingsError, describe_settings, load_settings
from fusebus.host.telemetry import Telemetry, TelemetrySettings, set_up_telemetry

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

S = TypeVar("S", bound=msgspec.Struct)
_log = logging.getLogger(__name__)


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `log`."""

    level: Annotated[str, msgspec.Meta(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Lowest level written.")] = (
        "INFO"
    )


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The sections that every service has without declaring them."""

    log: LogSettings
    health: HealthSettings
    telemetry: TelemetrySettings


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Life:
    """What a service's main is given: when to stop, and where to say how it is."""

    health: Health
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by SIGTERM or SIGINT: finish or give back what is in hand, then return."""


def run_service(
    name: str,
    settings_type: type[S],
    main: Callable[[S, Life], Awaitable[None]],
    about: str = "",
    *,
    event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run `main` until it returns, on a loop that `event_loop` makes; None: asyncio's own.

    Exit code 0 for a clean end, 1 for a failure, 2 for wrong settings or arguments.
    """
    arguments = sys.argv[1:]
    if arguments:
        known = arguments[0] in ("-h", "--help")
        print(_help(name, settings_type, about), file=sys.stdout if known else sys.stderr)
        return EXIT_OK if known else EXIT_USAGE
    try:
        settings = load_settings(settings_type, name)
        host = load_settings(HostSettings, "host")
    except SettingsError as error:
        print(f"{name}: these settings are wrong:\n{redact(str(error))}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    set_up_logs(name, host.log.level)
    telemetry = set_up_telemetry(name, host.telemetry, scraped=bool(host.health.port))
    try:
        with asyncio.Runner(loop_factory=event_loop) as runner:
            return runner.run(_live(name, settings, host, telemetry, main))
    finally:
        telemetry.shut()


async def _live(
    name: str, settings: S, host: HostSettings, telemetry: Telemetry, main: Callable[[S, Life], Awaitable[None]]
) -> int:
    life = Life(Health(host.health, telemetry.scrape))
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, life.stop.set)
    await life.health.start()
    _log.info("started")
    try:
        await main(settings, life)
    except SettingsError as error:
        _log.error("these settings are wrong: %s", error)
        return EXIT_USAGE
    except Exception:
        _log.exception("failed")
        return EXIT_FAILED
    finally:
        await life.health.close()
        for number in _STOP_SIGNALS:  # a loop that is closed hears nothing; uvloop would leave them deaf
            loop.remove_signal_handler(number)
    _log.info("stopped")
    return EXIT_OK


def _help(name: str, settings_type: type[msgspec.Struct], about: str) -> str:
    return f"""usage: python -m fusebus.{name} [--help]

{about or f"The {name} service."} Runs until SIGTERM; logs JSON lines to standard error.

Example: FUSEBUS_SETTINGS=.fusebus/settings.toml python -m fusebus.{name}

Settings come from the environment or the TOML file that FUSEBUS_SETTINGS names (one table for each section):
{describe_settings(settings_type, name)}
{describe_settings(HostSettings, "host")}

Exit codes: 0 clean end, 1 failure, 2 wrong settings or arguments."""
