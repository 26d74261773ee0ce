"""The receipt outlives cuts, keeps any name, and tells our own lost success from somebody else's file."""

from pathlib import Path

import pytest

from fusebus.upload import Receipt, ReceiptBroken
from fusebus.upload.receipt import NOT_SENT, SENDING, SENT, UNANSWERED, Entry

BOX = "https://a.example/in-acme"
NAME = "a\n\u202e\udcff\u2028.jpg"


def entry(state: str, sha256: str = "1" * 64) -> Entry:
    return Entry(BOX, NAME, state, sha256, 3, "2026-05-06T00:00:00+00:00", "0x1")


def test_a_cut_line_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "receipt"
    with Receipt(path) as receipt:
        receipt.note(entry(SENT))
    path.write_bytes(path.read_bytes() + b'[1]\nnull\n{"container": "x", "na')
    with Receipt(path) as receipt:
        assert receipt.sent(BOX, NAME) == entry(SENT)
        assert receipt.sent("https://a.example/in-other", NAME) is None
        receipt.note(Entry(BOX, "b", SENT, "2" * 64, 3, ""))
    with Receipt(path) as receipt:
        assert receipt.sent(BOX, "b") and receipt.sent(BOX, NAME)


def test_a_try_without_an_answer_is_remembered_until_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "receipt"
    with Receipt(path) as receipt:
        receipt.note(entry(SENDING))
    with Receipt(path) as receipt:
        assert (receipt.doubt(BOX, NAME, "1" * 64), receipt.doubt(BOX, NAME, "2" * 64)) == (SENDING, "")
        receipt.note(entry(UNANSWERED))
        receipt.note(entry(SENDING))
    with Receipt(path) as receipt:
        assert receipt.doubt(BOX, NAME, "1" * 64) == UNANSWERED, "another try takes nothing back"
        receipt.note(entry(NOT_SENT))
    with Receipt(path) as receipt:
        assert not receipt.doubt(BOX, NAME, "1" * 64)


def test_a_receipt_that_cant_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReceiptBroken, match="--receipt FILE"), Receipt(tmp_path / "none" / "receipt"):
        raise AssertionError("it was opened")
