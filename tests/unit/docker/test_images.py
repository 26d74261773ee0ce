"""The images' files: one pattern, nothing from outside it, every need pinned."""

import re
from pathlib import Path

import install
import pytest

ROOT = Path(__file__).parents[3]
PYTHON_IMAGES = sorted(
    [
        *ROOT.glob("services/*/Dockerfile"),
        *ROOT.glob("deploy/local/*/Dockerfile"),
        ROOT / "libs/console/Dockerfile",
        ROOT / "deploy/docker/mail/Dockerfile",
    ]
)
PATTERN = (
    "ARG BASE=python:3.11-slim-bookworm",
    "FROM ${BASE} AS manifests",
    "FROM ${BASE} AS tools",
    "deploy/docker/install.py tools",
    "FROM tools AS build",
    "deploy/docker/install.py needs",
    "deploy/docker/install.py own",
    "FROM ${BASE}\n",
    "useradd --uid 10001",
    "COPY --from=build /opt/fusebus /opt/fusebus",
    "COPY --from=build /opt/own /opt/own",
    "USER 10001:10001",
    "ENTRYPOINT [",
    "LABEL org.opencontainers.image.title=",
)


@pytest.mark.parametrize("file", PYTHON_IMAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_image_follows_the_pattern(file: Path) -> None:
    text = file.read_text()
    places = [text.find(part) for part in PATTERN]
    assert -1 not in places, PATTERN[places.index(-1)]
    assert places == sorted(places)
    assert not re.search(r"^# *syntax=|:latest|curl |wget |ADD ", text, re.MULTILINE)


@pytest.mark.parametrize("file", PYTHON_IMAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_downloaded_is_kept_beside_the_image_and_not_in_it(file: Path) -> None:
    steps = re.findall(r"^RUN (.*install\.py [a-z].*)", file.read_text(), re.MULTILINE)
    assert steps
    assert all(step.startswith(f"--mount=type=cache,target={install.CACHE} ") for step in steps)


def test_every_service_has_its_image() -> None:
    services = {file.parent for file in ROOT.glob("services/*/pyproject.toml")}
    assert services == {file.parent for file in ROOT.glob("services/*/Dockerfile")}


def test_every_image_but_those_without_a_server_has_a_health_check() -> None:
    missing = {file.parent.name for file in PYTHON_IMAGES if "HEALTHCHECK" not in file.read_text()}
    assert missing == {"console"}


def test_the_needs_of_a_service_are_those_of_everything_that_it_stands_on() -> None:
    own, foreign = install.resolve(["fusebus-ingest"], install.projects())
    assert {"fusebus-ingest", "fusebus-bus", "fusebus-contracts", "fusebus-host"} <= own
    assert any(need.startswith("azure-servicebus") for need in foreign)
    assert not [need for need in foreign if need.startswith(("fusebus", "torch", "onnxruntime"))]


@pytest.mark.parametrize(("extra", "module"), [("cpu", "onnxruntime>"), ("gpu", "onnxruntime-gpu[")])
def test_an_extra_brings_its_own_runtime_and_no_other(extra: str, module: str) -> None:
    _, foreign = install.resolve([f"fusebus-inferencer[{extra}]"], install.projects())
    assert next(need for need in foreign if need.startswith("onnxruntime")).startswith(module)
    assert sum(need.startswith("onnxruntime") for need in foreign) == 1


def test_every_need_of_every_image_is_pinned_with_a_hash() -> None:
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-gpu.txt").read_text()
    pinned = {
        name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==[^\n]*\\\n +--hash=sha256:", text, re.MULTILINE)
    }
    for file in PYTHON_IMAGES:
        said = file.read_text().replace("${EXTRA}", "gpu").replace('"', "")
        names = " ".join(re.findall(r"install\.py needs (.*)", said)).split()
        _, foreign = install.resolve(names, install.projects())
        wanted = {re.split(r"[\[<>=!~; ]", need)[0].lower() for need in foreign}
        assert wanted <= pinned, f"{file}: {wanted - pinned}; call `make lock`"


def test_nothing_but_sources_reaches_the_builds() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert [line for line in lines if line.startswith("!")] == [
        "!requirements.txt",
        "!requirements-gpu.txt",
        "!libs",
        "!services",
        "!deploy/docker",
        "!deploy/local",
    ]
