"""`fusebus model`: the registry's commands, and those that other installed packages bring."""

from __future__ import annotations

import asyncio
import getpass
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fusebus.blobs import Blobs, StorageError
from fusebus.bus import Bus, BusError
from fusebus.contracts.messages import ModelChanged
from fusebus.contracts.outcomes import Outgoing
from fusebus.host import SettingsError, environment_for_people, load_settings
from fusebus.models.live import AlreadySo, Change, RegistryError
from fusebus.models.manifest import ModelError, ModelManifest
from fusebus.models.registry import Registry
from fusebus.models.settings import CommandSettings
from fusebus.models.tables import live_table, version_table, versions_table

PLUGINS = "fusebus.model_commands"
EXIT_FAILED = 1
T = TypeVar("T")


class Meter:
    """The progress bar of one command: called with each part's bytes."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)

    def __call__(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def expect(self, total: int) -> None:
        """So many bytes in all."""
        self._progress.update(self._task, total=total)


Work = Callable[[Registry, Meter], Awaitable[T]]


class Commands(click.Group):
    """Loads a plug-in command only when it is called or listed."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Own and plugged-in names, sorted."""
        return sorted({*self.commands, *entry_points(group=PLUGINS).names})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command called `name`; None where nothing brings it, one that says why where it can't be loaded."""
        if name in self.commands:
            return self.commands[name]
        for found in entry_points(group=PLUGINS, name=name):
            try:
                command = found.load()
            except ImportError as error:
                return _unavailable(name, error)
            assert isinstance(command, click.Command)
            return command
        return None


def _unavailable(name: str, error: ImportError) -> click.Command:
    def refuse(**_: object) -> None:
        raise click.ClickException(f"fusebus model {name} can't run here: {error}; install what its package names")

    return click.Command(name, callback=refuse, short_help=f"Not available here: {error}")


def percent_of(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """The number in `10%` or `10`: more than 0, less than 100. Raises BadParameter."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,2}(\.\d+)?%?", text) or not float(text.rstrip("%")):
        raise click.BadParameter(f"{text!r} is no share: write a percentage such as 10% or 0.5%", context, parameter)
    return float(text.rstrip("%"))


REF = click.argument("ref", metavar="NAME@VERSION")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
WHO = click.option("--who", default=lambda: f"{getpass.getuser()}@{socket.gethostname()}", show_default="user@host",
                   help="Who does it, for the history.")  # fmt: skip
WHY = click.option("--why", required=True, help="Why, for the history and for whoever is on call.")
SETTINGS = click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with addresses and credentials; default: FUSEBUS_SETTINGS, or .fusebus/settings.toml here.",
)


@click.group(cls=Commands)
def model() -> None:
    """Bring models from a checkpoint into service, and back out of it.

    \b
    Examples:
      fusebus model push out/model --why "epoch 50"
      fusebus model promote fuse-neutral@2 --canary 10% --why "better on glare"
      fusebus model rollback --why "counts too many"
    """


@model.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--why", default="", help="What is new in it.")
@WHO
@JSON
@SETTINGS
def push(folder: Path, why: str, who: str, as_json: bool, settings_file: Path | None) -> None:
    """Verify and inspect the model in FOLDER, and bring it into the registry as a version that never changes.

    \b
    Example: fusebus model push out/model --why "epoch 50"
    Exit codes: 0 pushed, or there already (what it lacks is restored); 1 refused or not reached; 2 usage.
    """

    async def work(registry: Registry, meter: Meter) -> Any:
        meter.expect((await asyncio.to_thread(_inspect, folder)).total_bytes)
        return await registry.push(folder, who, why, meter)

    done = _run(work, settings_file, "pushing", quiet=as_json)
    if as_json:
        _print_json(done)
    elif done.new:
        click.echo(f'pushed {done.ref}; put it into service with: fusebus model promote {done.ref} --why "..."')
    elif done.restored:
        click.echo(f"{done.ref} was in the registry already, but lacked {', '.join(done.restored)}: restored")
    else:
        click.echo(f"{done.ref} is in the registry already, with the same bytes")


@model.command(name="list")
@JSON
@SETTINGS
def list_versions(as_json: bool, settings_file: Path | None) -> None:
    """List every version, what it is used for, and who brought it when.

    \b
    Example: fusebus model list --json | jq -r '.[].ref'
    Exit codes: 0 listed, 1 not reached, 2 usage.
    """

    async def work(registry: Registry, _: Meter) -> Any:
        return await registry.list()

    found = _run(work, settings_file)
    if as_json:
        _print_json(found)
    else:
        Console().print(versions_table(found))


@model.command()
@click.argument("ref", metavar="[NAME@VERSION]", default="")
@JSON
@SETTINGS
def show(ref: str, as_json: bool, settings_file: Path | None) -> None:
    """Show one version; without a name what is live, what rollback goes back to, and the history.

    \b
    Example: fusebus model show fuse-neutral@2
    Exit codes: 0 shown, 1 no such version or not reached, 2 usage.
    """

    async def work(registry: Registry, _: Meter) -> Any:
        return await (registry.show(ref) if ref else registry.document())

    found = _run(work, settings_file)
    if as_json:
        _print_json(found)
    else:
        Console(highlight=False).print(version_table(found) if ref else live_table(found), crop=False)


@model.command()
@REF
@click.option(
    "--canary",
    "percent",
    metavar="PERCENT",
    callback=percent_of,
    help="Give it this share of the images only, for example 10%.",
)
@WHY
@WHO
@JSON
@SETTINGS
def promote(ref: str, percent: float | None, why: str, who: str, as_json: bool, settings_file: Path | None) -> None:
    """Put a version into service: workers fetch, verify and try it beside the one they run, then switch.

    \b
    Example: fusebus model promote fuse-neutral@2 --canary 10% --why "better on glare"
    Exit codes: 0 done, or so already; 1 refused, somebody else was faster, or not reached; 2 usage.
    """

    async def work(registry: Registry, _: Meter) -> Change:
        return await registry.promote(ref, who, why, percent)

    _change(work, settings_file, as_json)


@model.command()
@WHY
@WHO
@JSON
@SETTINGS
def rollback(why: str, who: str, as_json: bool, settings_file: Path | None) -> None:
    """End the canary; without one, put what served before back into service. Again: one more step back.

    \b
    Example: fusebus model rollback --why "counts too many"
    Exit codes: 0 done; 1 nothing to go back to, somebody else was faster, or not reached; 2 usage.
    """

    async def work(registry: Registry, _: Meter) -> Change:
        return await registry.rollback(who, why)

    _change(work, settings_file, as_json)


@model.command()
@REF
@JSON
@SETTINGS
def verify(ref: str, as_json: bool, settings_file: Path | None) -> None:
    """Read every byte of a version in the registry and compare it with its manifest.

    \b
    Example: fusebus model verify fuse-neutral@2
    Exit codes: 0 all as it was pushed, 1 something is wrong or not reached, 2 usage.
    """

    async def work(registry: Registry, meter: Meter) -> Any:
        meter.expect((await registry.show(ref)).manifest.total_bytes)
        return await registry.verify(ref, meter)

    problems = _run(work, settings_file, "verifying", quiet=as_json)
    if as_json:
        _print_json({"ref": ref, "problems": problems})
    else:
        click.echo("\n".join(problems) or f"{ref} is as it was pushed")
    sys.exit(EXIT_FAILED if problems else 0)


@model.command()
@REF
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Where its folder is made; default: here.")
@JSON
@SETTINGS
def pull(ref: str, out: Path, as_json: bool, settings_file: Path | None) -> None:
    """Fetch a version into the folder NAME@VERSION, read-only, every digest checked; goes on where it broke off.

    \b
    Example: fusebus model pull fuse-neutral@2 --out models
    Exit codes: 0 there, 1 refused or not reached, 2 usage.
    """

    async def work(registry: Registry, meter: Meter) -> Any:
        meter.expect((await registry.show(ref)).manifest.total_bytes)
        return await registry.pull(ref, out, meter)

    folder = _run(work, settings_file, "pulling", quiet=as_json)
    _print_json({"ref": ref, "folder": str(folder)}) if as_json else click.echo(f"{ref} is in {folder}")


@model.command()
@REF
@WHY
@WHO
@JSON
@SETTINGS
def delete(ref: str, why: str, who: str, as_json: bool, settings_file: Path | None) -> None:
    """Remove a version for good, unless it is in use; its name is never given again.

    \b
    Example: fusebus model delete fuse-neutral@1 --why "superseded"
    Exit codes: 0 gone; 1 in use, no such version, or not reached; 2 usage.
    """

    async def work(registry: Registry, _: Meter) -> Any:
        return await registry.delete(ref, who, why)

    change = _run(work, settings_file)
    if as_json:
        _print_json(change or {"after": ref, "action": "delete"})
    else:
        click.echo(f"{ref} is deleted" if change else f"leftovers of an interrupted push of {ref} are removed")


def _change(work: Work[Change], settings_file: Path | None, as_json: bool) -> None:
    """Change what is live, say so here and on the fleet topic."""
    try:
        change = _run(work, settings_file)
    except AlreadySo as error:
        _print_json({"already": str(error)}) if as_json else click.echo(f"nothing to do: {error}")
        return
    if as_json:
        _print_json(change)
    else:
        click.echo(_told(change))
    if change.action in ("promote", "rollback"):
        asyncio.run(_announce(change, _settings(settings_file)))


def _told(change: Change) -> str:
    match change.action:
        case "canary":
            return f"{change.after} gets {change.percent:g} % of the images, {change.before} the others"
        case "stop canary":
            return f"the canary {change.before} has ended, {change.after} gets all images"
        case _:
            return f"{change.after} is live" + (f", in place of {change.before}" if change.before else "")


async def _announce(change: Change, settings: CommandSettings) -> None:
    """The same message that workers send when they switch: the broker keeps one of them.

    What was decided stands whether or not the bus hears of it.
    """
    message = ModelChanged(previous=change.before, current=change.after, changed_by=change.who, changed_at=change.when)
    try:
        async with Bus(settings.bus) as bus:
            await bus.publisher().publish([Outgoing(message=message)])
    except (BusError, SettingsError) as error:
        click.echo(f"the fleet topic could not be told (it holds all the same): {error}", err=True)


def _run(work: Work[T], settings_file: Path | None, label: str = "", quiet: bool = True) -> T:
    """What `work` gives for a registry; its errors end the command with exit code 1."""
    settings = _settings(settings_file)

    async def run() -> T:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=quiet or not label) as progress:
            async with Blobs(settings.blobs) as blobs:
                return await work(Registry(blobs, settings.models), Meter(progress, label))

    return _or_fail(lambda: asyncio.run(run()))


def _or_fail(action: Callable[[], T]) -> T:
    try:
        return action()
    except AlreadySo:
        raise
    except (ModelError, RegistryError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except StorageError as error:
        raise click.ClickException(f"the registry can't be reached: {error}; is the stack up (fusebus up)?") from error


def _settings(file: Path | None) -> CommandSettings:
    return load_settings(CommandSettings, "model", environment_for_people(file))


def _inspect(folder: Path) -> ModelManifest:
    # Imported here: onnx takes half a second, and only push needs it.
    from fusebus.models.inspection import inspect_graph
    from fusebus.models.manifest import load_manifest

    manifest = load_manifest(folder)
    inspect_graph(folder, manifest)
    return manifest


def _print_json(found: Any) -> None:
    click.echo(msgspec.json.encode(found))
