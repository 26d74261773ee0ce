import pytest

from fusebus.console.uploading import unfit_name


@pytest.mark.parametrize(
    "name", ["a.jpg", "van 7/Tür #1 100% [a].jpg", "照片 写真.JPG", "a?b&c=d+e.png", "\U0001f4f7.jpg", "x" * 1024]
)
def test_a_name_that_storage_takes_is_sent(name: str) -> None:
    assert unfit_name(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("red\x1b[31m.jpg", "control characters"),
        ("two\nlines.jpg", "control characters"),
        ("not text \udcff.jpg", "broken text"),
        ("no character \uffff.jpg", "broken text"),
        ("x" * 1025, "longer than 1024"),
        ("photo.", "ends with a dot"),
    ],
)
def test_a_name_that_storage_does_not_take_is_refused_before_it_is_sent(name: str, reason: str) -> None:
    assert reason in unfit_name(name)
