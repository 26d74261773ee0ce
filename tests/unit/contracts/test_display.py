import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.contracts import display


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("site/IMG_1.jpg", "site/IMG_1.jpg"),
        ("a\r\nBcc: x@y", "a Bcc: x@y"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("\x00\x1b[31mred", "[31mred"),
        ("e\u0301te\u0301.jpg", "été.jpg"),
        ("", "(no name)"),
        ("\u200b\ufeff", "(no name)"),
        ("\ud800x", "x"),
    ],
)
def test_names_are_shown_without_anything_that_moves_or_hides_text(raw, shown):
    assert display.name(raw) == shown


def test_a_long_name_keeps_its_start_and_its_extension():
    shown = display.name("start-" + "x" * 2_000 + "-end.jpg")
    assert len(shown) == display.NAME_LENGTH
    assert shown.startswith("start-x")
    assert shown.endswith("-end.jpg")


@given(st.text(max_size=300))
def test_no_text_brings_a_second_line_or_an_invisible_character(text):
    for shown in (display.one_line(text), display.name(text)):
        assert "\n" not in shown
        assert not any(unicodedata.category(character) in display._INVISIBLE for character in shown)
