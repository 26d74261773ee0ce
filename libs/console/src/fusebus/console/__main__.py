"""`fusebus`: own commands plus those that other installed packages bring (entry points `fusebus.commands`)."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points

import click

from fusebus.console.check import check
from fusebus.console.commands import status, upload
from fusebus.console.costs import cost
from fusebus.console.dead_letters import dead_letters
from fusebus.console.estimate import estimate
from fusebus.console.fleet import pools, quota, why
from fusebus.console.ingesting import ingest
from fusebus.console.orders import cancel, run_now
from fusebus.console.prices import prices
from fusebus.console.runs import close, reprocess
from fusebus.console.scaling import pause, resume, scale
from fusebus.console.simulation import simulate
from fusebus.console.suppliers import supplier
from fusebus.host import SettingsError

EXIT_USAGE = 2
WAY_OUT = "Start a stack in this folder (fusebus up), or name a settings file (--settings, FUSEBUS_SETTINGS)."


class Commands(click.Group):
    """Loads a plug-in command only when it is called or listed."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Own and plugged-in names, sorted."""
        return sorted({*self.commands, *entry_points(group="fusebus.commands").names})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command called `name`; None where nothing brings it."""
        if name in self.commands:
            return self.commands[name]
        for found in entry_points(group="fusebus.commands", name=name):
            command = found.load()
            assert isinstance(command, click.Command)
            return command
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fusebus-console", prog_name="fusebus")
def fusebus() -> None:
    """Find the fuse neutrals in photos of electrical cut-outs.

    \b
    Examples:
      fusebus run photos --out results     analyse a folder on this machine, no cloud
      fusebus up                           keep the embedded stack running
      fusebus upload photos --supplier acme
      fusebus status --watch
      fusebus check photos/*.jpg           what ingest would say of them, offline
      fusebus run-now RUN                  don't wait for the window; fusebus cancel RUN ends it
      fusebus why                          what the dispatcher decided, and the numbers behind it
    """


fusebus.add_command(upload)
fusebus.add_command(status)
fusebus.add_command(check)
fusebus.add_command(ingest)
fusebus.add_command(simulate)
for command in (
    cost,
    prices,
    estimate,
    scale,
    pause,
    resume,
    why,
    pools,
    quota,
    dead_letters,
    supplier,
    close,
    reprocess,
    run_now,
    cancel,
):
    fusebus.add_command(command)


def main() -> None:
    """Run the command line; wrong settings end with exit code 2 and name each variable."""
    # What the libraries log on the way is shown in the tables or in the error.
    logging.getLogger("fusebus").addHandler(logging.NullHandler())
    try:
        fusebus(prog_name="fusebus")
    except SettingsError as error:
        click.echo(f"fusebus: these settings are wrong:\n{error}\n{WAY_OUT}", err=True)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
