"""Compiles the package's C: with $CC, with the system's compiler, or with the one that PyPI has as `ziglang`."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("src/fusebus/convert")
SOURCES = (PACKAGE / "rle_deflate.c", PACKAGE / "average.c")
LIBRARY = PACKAGE / "librows.so.1"  # with a name in .so Python would take it for a module
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ["-std=c11", "-O3", "-fPIC", "-shared"]  # for any processor of its kind: the same library serves all nodes


def compiler() -> list[str]:
    """The command that compiles C; SystemExit where there is none."""
    if named := os.environ.get("CC"):
        return shlex.split(named)
    if found := next(filter(None, map(shutil.which, COMPILERS)), None):
        return [found]
    if find_spec("ziglang") is None:
        sys.exit("fusebus-convert: no C compiler: install gcc or clang, or `pip install ziglang`, or name one in CC")
    target = ["-target", f"{platform.machine()}-linux-gnu.2.17"] if sys.platform == "linux" else []
    return [sys.executable, "-m", "ziglang", "cc", *target, "-mcpu=baseline"]


def has_compiler() -> bool:
    """Whether this machine can compile without PyPI's help."""
    return bool(os.environ.get("CC")) or any(map(shutil.which, COMPILERS))


class Hook(BuildHookInterface):
    """Called by hatchling for wheels and for editable installs."""

    def dependencies(self) -> list[str]:
        """What a build in an environment of its own installs first."""
        return [] if has_compiler() else ["ziglang>=0.16"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the wheel is then this platform's, for every Python 3."""
        root = Path(self.root)
        made = root / PACKAGE / f"librows.{os.getpid()}.so.1"
        command = [*compiler(), *OPTIONS, *(str(root / source) for source in SOURCES), "-o", str(made)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            made.unlink(missing_ok=True)
            sys.exit(f"fusebus-convert: {error}\nAnother compiler can be named: CC=clang, or CC='python -m ziglang cc'")
        made.replace(root / LIBRARY)  # whole or not at all: two builds may run at a time
        build_data["artifacts"].append(LIBRARY.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
