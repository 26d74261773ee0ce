"""Names at the destination: stable, without collisions, and never outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fusebus.convert import Reason, Unconvertible
from fusebus.convert.names import destination_names, is_picture


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg"], ["a.png"]),
        (["sub/a.JPEG", "a.jpg"], ["sub/a.png", "a.png"]),
        (["a.jpg", "a.tif"], ["a.jpg.png", "a.tif.png"]),
        (["a.jpg", "A.JPG"], ["a.jpg.png", "A.JPG.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["no suffix", "a.b.jpg"], ["no suffix.png", "a.b.png"]),
        (["v1.2/photo"], ["v1.2/photo.png"]),
        (["photo 2024.05"], ["photo 2024.05.png"]),
    ],
)
def test_names_keep_all_but_their_suffix(names: list[str], expected: list[str]) -> None:
    found = destination_names(names, ".png")
    failed = [name for name in names if isinstance(found[name], Unconvertible)]
    if names == ["a.jpg", "A.JPG"]:
        assert failed == names  # the same file where case does not count
        return
    assert [found[name] for name in names] == expected


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "/a.jpg", "a//b.jpg", "./a.jpg", "a\\b.jpg", "a\n.jpg", "a\x00.jpg", "x" * 300 + ".jpg", "\udce4.jpg"],
)
def test_a_name_that_is_no_path_below_is_refused(name: str) -> None:
    found = destination_names([name], ".png")[name]
    assert isinstance(found, Unconvertible)
    assert found.reason is Reason.NAME


def test_a_name_that_still_meets_another_is_refused() -> None:
    found = destination_names(["a.jpg", "a.tif", "a.jpg.tif"], ".png")
    assert isinstance(found["a.jpg"], Unconvertible)
    assert found["a.jpg"].reason is Reason.NAME_TAKEN
    assert found["a.tif"] == "a.tif.png"


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({"b.jpg": "b.png"}, ["b.png", "b.tif.png", "b.png.png"]),
        ({"b.jpg": "b.webp"}, ["b.png", "b.tif.png", "b.png.png"]),
        ({"b.jpg": "b.jpg.png", "b.png": "b.png"}, ["b.jpg.png", "b.tif.png", "b.png"]),
        ({"gone.jpg": "gone.png"}, ["b.jpg.png", "b.tif.png", "b.png"]),
        ({"b.bmp": "b.png"}, ["b.jpg.png", "b.tif.png", "b.png.png"]),
        ({"b.jpg": "b.png", "b.tif": "b.webp"}, ["b.jpg.png", "b.tif.png", "b.png"]),
        ({"b.jpg": "../../b.png", "b.tif": "/etc/passwd", "b.png": ""}, ["b.jpg.png", "b.tif.png", "b.png"]),
    ],
)
def test_names_that_the_record_has_stay(recorded: dict[str, str], expected: list[str]) -> None:
    assert list(destination_names(["b.jpg", "b.tif", "b.png"], ".png", recorded).values()) == expected


def test_names_that_differ_in_case_only_are_refused_with_the_folders_too() -> None:
    found = destination_names(["d/x.jpg", "D/x.jpg"], ".png")
    assert {one.reason for one in found.values() if isinstance(one, Unconvertible)} == {Reason.NAME_TAKEN}


names = some.lists(some.text(alphabet="abA./", min_size=1, max_size=8), unique=True)
suffixed = some.lists(
    some.sampled_from(["b", "B", "c"]).flatmap(
        lambda stem: some.sampled_from(["", ".jpg", ".tif", ".png", ".webp", ".jpg.tif", ".jpg.png"]).map(stem.__add__)
    ),
    unique=True,
)


@given(names | suffixed, names | suffixed)
def test_an_arrival_changes_no_name_and_takes_none(early: list[str], late: list[str]) -> None:
    first = destination_names(early, ".webp")
    recorded = {name: one for name, one in first.items() if isinstance(one, str)}
    both = destination_names({*early, *late}, ".webp", recorded)
    assert {name: both[name] for name in recorded} == recorded
    kept = [name for name in both.values() if isinstance(name, str)]
    assert len({name.casefold() for name in kept}) == len(kept)
    later = {name: one for name, one in both.items() if isinstance(one, str)}
    assert destination_names(later, ".webp", later) == later


@given(some.lists(some.text(alphabet="ab./", min_size=1, max_size=8), unique=True))
def test_no_two_sources_ever_share_a_name_whatever_their_order(names: list[str]) -> None:
    found = destination_names(names, ".png")
    kept = [name for name in found.values() if isinstance(name, str)]
    assert len({name.casefold() for name in kept}) == len(kept)
    again = destination_names(reversed(names), ".png")
    assert {name: str(one) for name, one in again.items()} == {name: str(one) for name, one in found.items()}


@pytest.mark.parametrize(
    ("name", "taken"),
    [("a.jpg", True), ("a/b.TIFF", True), ("photo", True), (".a.jpg", False), (".git/a.jpg", False), ("a.txt", False)],
)
def test_pictures_are_told_by_their_suffix_and_hidden_files_are_left_alone(name: str, taken: bool) -> None:
    assert is_picture(name) is taken
