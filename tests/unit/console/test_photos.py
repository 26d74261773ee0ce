from pathlib import Path

import pytest

from fusebus.console.photos import NothingToSend, photos_in


def test_folders_below_are_read_and_named_with_forward_slashes(tmp_path: Path) -> None:
    (tmp_path / "van 7" / "monday").mkdir(parents=True)
    (tmp_path / "van 7" / "monday" / "ü 1.jpg").write_bytes(b"123")
    (tmp_path / "a.png").write_bytes(b"1")
    assert [(photo.name, photo.size) for photo in photos_in(tmp_path)] == [("a.png", 1), ("van 7/monday/ü 1.jpg", 3)]


def test_hidden_files_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.jpg").touch()
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "a.jpg").touch()
    assert [photo.name for photo in photos_in(tmp_path)] == ["a.jpg"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), "holds no files"),
    ],
)
def test_a_folder_without_photos_is_a_clear_error(tmp_path: Path, make: object, reason: str) -> None:
    folder = tmp_path / "photos"
    make(folder)  # type: ignore[operator]
    with pytest.raises(NothingToSend, match=reason):
        photos_in(folder)
