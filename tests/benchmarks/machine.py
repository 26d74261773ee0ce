"""What a run was measured on: the machine, the versions of the libraries that matter, and how busy others kept it."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from results import Machine

LIBRARIES = (
    "numpy", "opencv-python-headless", "simplejpeg", "pyvips-binary", "pillow", "isal", "deflate", "pycocotools",
    "onnxruntime", "azure-servicebus", "azure-storage-blob", "msgspec",
)  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")
PROGRAMS = {"node": ["node", "--version"], "imagemagick": ["convert-im6.q16", "-version"]}


def machine() -> Machine:
    """Read from the kernel."""
    kernel = ".".join(platform.release().split(".")[:2])
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return Machine(
        processor=processor(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(int(memory[1]) / 2**20, 1) if memory else 0.0,
        system=f"{platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, kernel {kernel}",
        python=platform.python_version(),
    )


def processor(cpuinfo: str) -> str:
    """The model's name; virtual machines often hide it, so with what tells generations apart."""
    found = {name: re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE) for name in ("model name", "model")}
    name, model = found["model name"], found["model"]
    return f"{name[1]}, model {model[1]}" if name and model else platform.machine()


def versions() -> dict[str, str]:
    """Of libraries and programs; what is not there is left out."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name, command in PROGRAMS.items():
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if number := re.search(r"\d+(\.\d+)+(-\d+)?", text):
            found[name] = number[0]
    return found


def commit() -> str:
    """What was measured; with a plus where the work tree has changes."""
    try:
        command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine_seconds() -> float:
    """Busy seconds of all cores since the machine started, whoever used them."""
    user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS


class Others:
    """Cores that others keep busy, from here on; our own are this process and its children that ended."""

    def __init__(self) -> None:
        self._busy, self._own = machine_seconds(), _own_seconds()

    def cores(self, seconds: float) -> float:
        """On average over the seconds since it was made."""
        return max(0.0, (machine_seconds() - self._busy - (_own_seconds() - self._own)) / max(seconds, 1e-3))


def _own_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


@contextmanager
def one_core() -> Iterator[None]:
    """What is started meanwhile stays on one core, with this process.

    On two, one of two that answer each other mostly sleeps, and what it takes to wake a core, and a virtual one above
    all, counts as the time of whoever wakes and is woken.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
