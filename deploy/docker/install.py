"""Installs distributions of this repository into an image: their needs pinned by hash, then themselves.

    python3 deploy/docker/install.py tools                    uv and the build backend: the same layer for every image
    python3 deploy/docker/install.py needs fusebus-ingest     changes rarely: a layer of its own in /opt/fusebus
    python3 deploy/docker/install.py wheels                   the repository's own packages: the same for every image
    python3 deploy/docker/install.py own fusebus-ingest       those that it stands on, in /opt/own

`fusebus-inferencer[gpu]` takes an extra with it; a name without the prefix `fusebus-` is a package of the index.
Versions and hashes are those of requirements.txt, and of requirements-gpu.txt with the extra `gpu`; a package that is
in neither ends the build.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path("/opt/tools")  # uv and the build backend; stay behind in the build stage
ENVIRONMENT = Path("/opt/fusebus")
OWN = Path("/opt/own")
WHEELS = Path("/opt/wheels")
CACHE = Path("/var/cache/uv")  # what uv has downloaded: the Dockerfiles mount it, so it is in no image
LOCK, GPU_LOCK = ROOT / "requirements.txt", ROOT / "requirements-gpu.txt"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([A-Za-z0-9,_-]+)\])?")


def projects() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and `[project]` table of each distribution of the repository."""
    files = [path for area in ("libs", "services", "deploy/local") for path in ROOT.glob(f"{area}/*/pyproject.toml")]
    tables = {path.parent: tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in sorted(files)}
    return {table["name"]: (folder, table) for folder, table in tables.items()}


def resolve(names: list[str], known: dict[str, tuple[Path, dict[str, Any]]]) -> tuple[set[str], set[str]]:
    """What `names` stand on, themselves included: distributions of the repository, and requirements from the index."""
    own: set[str] = set()
    foreign: set[str] = set()
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        requirement = waiting.pop()
        if requirement in seen:
            continue
        seen.add(requirement)
        matched = _REQUIREMENT.match(requirement)
        assert matched is not None, requirement
        name, extras = matched[1], [extra for extra in (matched[2] or "").split(",") if extra]
        if name not in known:
            foreign.add(requirement)
            continue
        own.add(name)
        table = known[name][1]
        optional = table.get("optional-dependencies", {})
        waiting += table["dependencies"]
        for extra in extras:
            waiting += optional[extra]
    return own, foreign


def install_tools(names: list[str]) -> None:
    """uv is the one package that pip fetches, by its hash from the same lock."""
    _run("/usr/local/bin/python3", "-m", "venv", TOOLS)
    uv = re.search(r"^uv==.*?(?<!\\)$", LOCK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert uv is not None, "uv is not in requirements.txt"
    pinned = TOOLS / "uv.txt"
    pinned.write_text(uv[0] + "\n", encoding="utf-8")
    _run(TOOLS / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--require-hashes", "-r", pinned)
    _install(TOOLS, *_constraints([LOCK]), "hatchling")


def install_needs(names: list[str]) -> None:
    """Everything that comes from the index; a second call adds to what is there.

    The images share their first calls, and with them what these have downloaded and compiled.
    """
    own, foreign = resolve(names, projects())
    locks = [LOCK, GPU_LOCK] if any("gpu" in name for name in names) else [LOCK]
    if not ENVIRONMENT.exists():
        _run(TOOLS / "bin/uv", "venv", "--quiet", "--python", "/usr/local/bin/python3", ENVIRONMENT)
    wanted = TOOLS / "needs.txt"
    wanted.write_text("\n".join(sorted(foreign)), encoding="utf-8")
    _install(ENVIRONMENT, *_constraints(locks), "--compile-bytecode", "-r", wanted)
    _check_pinned(locks)
    site = next(ENVIRONMENT.glob("lib/python3*/site-packages"))
    (site / "own.pth").write_text(f"{OWN}\n", encoding="utf-8")
    print(f"install: {len(foreign)} requirements of {', '.join(sorted(own))}")


def build_wheels(names: list[str]) -> None:
    """Every distribution of the repository as a wheel: once for all images."""

    def build(folder: Path) -> None:
        _run(
            TOOLS / "bin/uv", "build", "--quiet", "--wheel", "--no-build-isolation",
            "--python", TOOLS / "bin/python", "--out-dir", WHEELS, folder,
        )  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build, [folder for folder, _ in projects().values()]))


def install_own(names: list[str]) -> None:
    """Put the repository's packages beside the environment: a layer that is small and changes with each commit."""
    own, _ = resolve(names, projects())
    wheels = [next(WHEELS.glob(f"{name.replace('-', '_')}-*.whl")) for name in sorted(own)]
    OWN.mkdir(exist_ok=True)
    if wheels:
        _install(TOOLS, "--target", OWN, "--no-deps", "--compile-bytecode", *wheels)
    for script in OWN.glob("bin/*"):  # they would start with the build stage's Python
        script.unlink()


def _check_pinned(locks: list[Path]) -> None:
    """A package without a pin was not in the lock: uv takes it with any hash, we don't."""
    text = "\n".join(lock.read_text(encoding="utf-8") for lock in locks)
    pins = {pin.lower() for pin in re.findall(r"^([A-Za-z0-9._-]+==[^ ;\\]+)", text, re.MULTILINE)}
    frozen = subprocess.run(
        [TOOLS / "bin/uv", "pip", "freeze", "--python", ENVIRONMENT / "bin/python"],
        check=True,
        capture_output=True,
        text=True,
    )
    missing = sorted({line.lower() for line in frozen.stdout.split()} - pins)
    if missing:
        sys.exit(f"install: not pinned by hash (call `make lock`): {', '.join(missing)}")


def _constraints(locks: list[Path]) -> list[str | Path]:
    """uv checks the hashes of constraints, too."""
    return [part for lock in locks for part in ("--constraint", lock)]


def _install(environment: Path, *arguments: str | Path) -> None:
    _run(TOOLS / "bin/uv", "pip", "install", "--quiet", "--python", environment / "bin/python", *arguments)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, env={**os.environ, "UV_LINK_MODE": "copy", "UV_CACHE_DIR": str(CACHE)})


if __name__ == "__main__":
    {"tools": install_tools, "needs": install_needs, "wheels": build_wheels, "own": install_own}[sys.argv[1]](
        sys.argv[2:]
    )
