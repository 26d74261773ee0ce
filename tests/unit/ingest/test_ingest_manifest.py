"""Manifests as strangers send them: what is listed, or why nothing is, in words that a supplier can act on."""

from __future__ import annotations

import json
import re

import pytest

from fusebus.contracts import display
from fusebus.ingest.manifest import (
    EXPLANATIONS,
    MAX_BYTES,
    MAX_FILES,
    BadManifest,
    Refusal,
    is_manifest,
    is_picture,
    read_manifest,
    refused,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("manifest.json", True),
        ("2026-11-22-van7/Manifest.CSV", True),
        ("manifest-2.json", True),
        ("a\\manifest.json", False),
        ("manifest.json.jpg", False),
        ("my manifest.json", False),
        ("manifest-.json", False),
        ("manifest.json\n", False),
        ("manifest.json/photo.jpg", False),
        ("", False),
    ],
)
def test_a_manifest_is_known_by_its_last_name(name: str, expected: bool) -> None:
    assert is_manifest(name) is expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.json", b'{"files": ["a.jpg", "sub/b.jpg"]}'),
        ("manifest.json", b'\xef\xbb\xbf["a.jpg", {"name": "sub/b.jpg", "size": 3}]'),
        ("manifest.json", b'{"by": "van 7", "files": [{"name": "a.jpg", "name ": 1}, "sub/b.jpg"]}'),
        ("manifest.csv", b"a.jpg\nsub/b.jpg\n"),
        ("manifest.csv", b"\xef\xbb\xbfsize;Name\r\n3;a.jpg\r\n\r\n4;sub/b.jpg\r\n"),
        ("manifest.csv", b'"file"\t"note"\na.jpg\t"two\nlines"\nsub/b.jpg\t\n'),
        ("manifest.csv", b"file\na.jpg\nsub/b.jpg\nmanifest.csv\n"),
    ],
)
def test_lists_of_every_usual_form_name_the_same_files(name: str, data: bytes) -> None:
    assert read_manifest(name, data).names == ("a.jpg", "sub/b.jpg")


def test_names_are_below_the_manifests_own_folder_and_are_kept_as_they_are() -> None:
    odd = ["=cmd|' /C calc'!A0.jpg", "<b>\u202egpj.exe", "ünder.jpg", "a b  .jpg", "-rf", "%2e%2e.jpg"]
    found = read_manifest("van7/manifest-x.json", json.dumps(odd).encode())
    assert found.names == tuple(f"van7/{name}" for name in odd)


HOSTILE: list[tuple[str, bytes, Refusal]] = [
    ("manifest.json", b" " * (MAX_BYTES + 1), Refusal.TOO_LARGE),
    ("manifest.json", json.dumps([f"{n}" for n in range(MAX_FILES + 1)]).encode(), Refusal.TOO_MANY_FILES),
    ("manifest.csv", b"\n".join(b"%d.jpg" % n for n in range(MAX_FILES + 1)), Refusal.TOO_MANY_FILES),
    ("manifest.json", '["a.jpg"]'.encode("utf-16"), Refusal.WRONG_ENCODING),
    ("manifest.csv", "grün.jpg".encode("latin-1"), Refusal.WRONG_ENCODING),
    ("manifest.csv", b"a.jpg\0\n", Refusal.WRONG_ENCODING),
    ("manifest.json", b"[" * 100_000, Refusal.MALFORMED),
    ("manifest.json", b'{"files":' * 50_000, Refusal.MALFORMED),
    ("manifest.json", b'{"files": "a.jpg"}', Refusal.MALFORMED),
    ("manifest.json", b'{"files": [1]}', Refusal.MALFORMED),
    ("manifest.json", b'{"files": ["a.jpg"]', Refusal.MALFORMED),
    ("manifest.json", b'["\\ud800.jpg"]', Refusal.MALFORMED),
    ("manifest.json", b"", Refusal.MALFORMED),
    ("manifest.csv", b'name\n"a.jpg', Refusal.MALFORMED),
    ("manifest.csv", b"size;name\n3\n", Refusal.MALFORMED),
    ("manifest.csv", b'name\n"' + b"x" * 200_000 + b'"\n', Refusal.MALFORMED),
    ("manifest.csv", b"", Refusal.NO_NAMES),
    ("manifest.csv", b"name\n", Refusal.NO_NAMES),
    ("manifest.csv", b"3;a.jpg\n", Refusal.NO_NAMES),
    ("manifest.json", b"[]", Refusal.NO_NAMES),
    ("manifest.json", b'["a.jpg", "a.jpg"]', Refusal.REPEATED_NAME),
    ("manifest.json", '["u\u0308.jpg", "\u00fc.jpg"]'.encode(), Refusal.REPEATED_NAME),
    *(
        ("van7/manifest.json", json.dumps([name]).encode(), Refusal.BAD_NAME)
        for name in (
            "",
            "../secret.jpg",
            "a/../../b.jpg",
            "./a.jpg",
            "/etc/passwd",
            "a//b.jpg",
            "..\\win.ini",
            "C:a.jpg",
            "a\r\nBcc: x@example.com",
            "a\x1b[2Jb.jpg",
            "x" * 1_025,
            "a/",
        )
    ),
]


@pytest.mark.parametrize(("name", "data", "refusal"), HOSTILE)
def test_a_hostile_manifest_is_refused_with_a_reason_and_the_way_out(name: str, data: bytes, refusal: Refusal) -> None:
    with pytest.raises(BadManifest) as raised:
        read_manifest(name, data)
    assert raised.value.refusal is refusal
    told = refused(name, raised.value)
    assert (told.refused, told.names, told.listed) == (refusal.value, "", 0)
    assert told.explanation == display.one_line(told.explanation), "one line of visible characters"
    assert "photos are taken" in told.explanation
    assert re.search(r"manifest-2\.(json|csv)\.$", told.explanation)


def test_the_name_that_is_proposed_is_another_one() -> None:
    assert refused("van7/Manifest-2.JSON", BadManifest(Refusal.NO_NAMES)).explanation.endswith("manifest-3.json.")


def test_every_reason_has_its_sentence() -> None:
    assert EXPLANATIONS.keys() == set(Refusal)


def test_a_picture_is_one_whatever_it_is_called_and_a_list_is_none() -> None:
    assert is_picture(b"\xff\xd8\xff\xe0" + b"\0" * 64)
    assert is_picture(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    assert not any(is_picture(data) for data in (b"", b"{}", b"BM1.jpg\n", b"name\na.jpg"))
