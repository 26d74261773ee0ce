"""How text from outside is shown to people: one line, no control or direction characters, a bounded length."""

from __future__ import annotations

import unicodedata

NAME_LENGTH = 80  # characters; a longer name keeps its start and its end, where the extension is
SENTENCE_LENGTH = 600  # characters

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move, hide or reverse the text around them: controls, bidi, surrogates, separators."""
_EMPTY = "(no name)"


def one_line(text: str, length: int = SENTENCE_LENGTH) -> str:
    """NFC text in one line, without control, bidi and unassigned characters, cut at `length` characters."""
    normal = unicodedata.normalize("NFC", text[: 4 * length])
    spaced = "".join(" " if character in "\t\r\n\v\f\x85\u2028\u2029" else character for character in normal)
    visible = "".join(character for character in spaced if unicodedata.category(character) not in _INVISIBLE)
    words = " ".join(visible.split())
    return words if len(words) <= length else words[: length - 1] + "…"


def name(text: str, length: int = NAME_LENGTH) -> str:
    """A blob's name for display, the middle left out where it is long. Never a path, never a file name."""
    words = one_line(text, max(len(text), 1))
    if len(words) <= length:
        return words or _EMPTY
    tail = length // 3
    return f"{words[: length - tail - 1]}…{words[-tail:]}"
