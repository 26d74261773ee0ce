"""Decisions about what is live, and which image goes where, on plain values."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec
import pytest

from fusebus.models.live import (
    MAX_HISTORY,
    MAX_PREVIOUS,
    MAX_WHO,
    MAX_WHY,
    Canary,
    Change,
    Live,
    LiveModel,
    RegistryError,
    decode_live,
    deleted,
    encode_live,
    promoted,
    require_text,
    rolled_back,
)
from fusebus.models.places import parse_ref, ref_of
from fusebus.models.registry import MAX_LIVE_BYTES
from fusebus.models.routing import choose

IMAGES = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(20_000)]


def change(who: str = "ada", why: str = "go") -> Change:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Change(id="1", who=who, when=now, why=why, action="", before="", after="")


def version(number: int) -> LiveModel:
    return LiveModel(name="m", version=str(number), manifest_sha256="0" * 64)


def after(*numbers: int, canary: int | None = None, percent: float = 10) -> Live:
    live = Live()
    for number in numbers:
        live = promoted(live, version(number), None, change())
    return live if canary is None else promoted(live, version(canary), percent, change())


def test_the_document_reads_back_and_its_etag_is_not_in_it() -> None:
    live = msgspec.structs.replace(after(1, 2, canary=3), etag="0x1")
    data = encode_live(live)
    assert b"0x1" not in data
    assert decode_live(data, "0x1") == live
    assert b'"from": "m@1"' in data


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format_version": 9}', b"\xff", b"[" * 100_000])
def test_a_document_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(RegistryError):
        decode_live(data, "")


def test_rollback_returns_to_what_was_live_and_never_to_what_it_left() -> None:
    live = after(1, 2, 3)
    for expected in ("m@2", "m@1"):
        live = rolled_back(live, change())
        assert live.current is not None
        assert live.current.ref == expected
    with pytest.raises(RegistryError):
        rolled_back(live, change())


def test_a_version_that_comes_back_is_not_its_own_rollback_target() -> None:
    live = after(1, 2, 1)
    assert [model.ref for model in live.previous] == ["m@2"]


def test_promoting_what_is_live_ends_the_canary_beside_it() -> None:
    live = promoted(after(1, canary=2), version(1), None, change())
    assert (live.canary, live.history[-1].action) == (None, "stop canary")
    assert live.current == version(1)


def test_the_document_stays_small() -> None:
    live = Live()
    for number in range(MAX_HISTORY + 50):
        live = promoted(live, version(number), None, change("\U0001f600" * MAX_WHO, "\U0001f600" * MAX_WHY))
    assert len(live.history) == MAX_HISTORY
    assert len(live.previous) == MAX_PREVIOUS
    assert len(encode_live(live)) < MAX_LIVE_BYTES


@pytest.mark.parametrize(("who", "why"), [("a" * 201, ""), ("a", "y" * 501), ("a", "two\nlines"), ("\x1b[2J", "")])
def test_texts_that_would_spoil_the_history_are_refused(who: str, why: str) -> None:
    require_text("ada@host", "größer, 10 %")
    with pytest.raises(RegistryError, match="one line"):
        require_text(who, why)


def test_only_what_nothing_needs_is_deleted() -> None:
    live = after(1, 2, 3, canary=4)
    for number in (2, 3, 4):
        with pytest.raises(RegistryError, match=f"m@{number} is"):
            deleted(live, f"m@{number}", change())
    left = deleted(live, "m@1", change())
    assert [model.ref for model in left.previous] == ["m@2"]


@pytest.mark.parametrize("percent", [0.5, 10, 50, 99])
def test_the_canary_sees_its_share_of_the_images(percent: float) -> None:
    live = after(1, canary=2, percent=percent)
    share = sum(choose(image, live) == "m@2" for image in IMAGES) / len(IMAGES)
    assert share == pytest.approx(percent / 100, abs=0.01)


def test_an_image_keeps_its_version_when_the_share_grows() -> None:
    small, large = after(1, canary=2, percent=10), after(1, canary=2, percent=30)
    chosen = {image for image in IMAGES if choose(image, small) == "m@2"}
    assert chosen < {image for image in IMAGES if choose(image, large) == "m@2"}


def test_another_canary_draws_another_sample() -> None:
    two, three = after(1, canary=2, percent=50), after(1, canary=3, percent=50)
    both = sum(choose(image, two) == "m@2" and choose(image, three) == "m@3" for image in IMAGES)
    assert both / len(IMAGES) == pytest.approx(0.25, abs=0.02)


def test_without_a_canary_all_images_go_to_the_current_version() -> None:
    assert {choose(image, after(1)) for image in IMAGES[:100]} == {"m@1"}
    assert choose(IMAGES[0], Live()) == ""


@pytest.mark.parametrize("percent", [0, 100, -1, 101])
def test_a_share_of_all_or_nothing_is_no_canary(percent: float) -> None:
    fields = {"name": "m", "version": "1", "manifest_sha256": "0" * 64, "percent": percent}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, Canary)


@pytest.mark.parametrize("text", ["", "m", "m@", "@1", "m@1@2", "../m@1", "m@..", "m/x@1", "m@1\n", "m@1.", "-m@1"])
def test_what_is_no_name_of_a_version_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="NAME@VERSION"):
        parse_ref(text)


def test_only_a_manifest_in_its_place_is_a_version() -> None:
    assert str(ref_of("versions/m/1/manifest.json")) == "m@1"
    for name in ("versions/m/1/model.onnx", "versions/m/manifest.json", "versions/m/1/x/manifest.json",
                 "versions/../1/manifest.json", "other/m/1/manifest.json"):  # fmt: skip
        assert ref_of(name) is None
