"""What happens between the sender and a machine that is no storage."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusebus.upload import FileOutcome, LinkRefused, Receipt, Sent, files_in, send_files, unfit_name
from fusebus.upload.link import Link, read_link
from fusebus.upload.receipt import SENDING, Entry
from fusebus.upload.sending import name_of_content


@contextmanager
def server(*answers: bytes, port: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Gives each connection the next of `answers`; what each asked for (its first line) is kept."""
    listener, asked = socket.create_server(("127.0.0.1", port)), list[bytes]()

    def serve() -> None:
        for answer in answers:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(65536)
                while request.startswith(b"PUT") and not request.partition(b"\r\n\r\n")[2]:
                    request += client.recv(65536)  # the body, which `send` makes of one byte
                asked.append(request.partition(b"\r\n")[0])
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], asked
    listener.close()


def answer(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""]).encode()


CREATED = answer("201 Created")
TAKEN = answer("409 Conflict", "x-ms-error-code: BlobAlreadyExists")
MISMATCH = answer("403 No", "x-ms-error-code: AuthorizationPermissionMismatch")


def send(folder: Path, url: str) -> FileOutcome:
    (folder / "a.jpg").write_bytes(b"a")
    with Receipt(folder / ".receipt") as receipt:
        (outcome,) = send_files(read_link(url, datetime.now(UTC)), files_in(folder), receipt)
    return outcome


def test_a_busy_storage_is_asked_again_and_a_redirect_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    with server(answer("503 Busy"), answer("500 Oops"), answer("201 Created")) as (port, asked):
        assert send(tmp_path, f"http://127.0.0.1:{port}/box?sp=c&sig=x").sent is Sent.SENT
    assert asked == [b"PUT /box/a.jpg?sp=c&sig=x HTTP/1.1"] * 3
    (tmp_path / ".receipt").unlink()
    with server(answer("302 Found", "Location: http://127.0.0.1:1/thief")) as (port, asked):
        assert send(tmp_path, f"http://127.0.0.1:{port}/box?sp=c&sig=x").error == "storage answered 302"


def test_tries_end_and_the_next_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("fusebus.upload.sending.MAX_TRIES", 2)
    with server(b"", b"") as (port, _):
        outcome = send(tmp_path, f"http://127.0.0.1:{port}/box?sp=c&sig=x")
    assert (outcome.sent, "call again later" in outcome.error) == (Sent.FAILED, True)


def test_a_taken_name_is_ours_only_where_our_own_try_had_no_answer(tmp_path: Path) -> None:
    with server(TAKEN, TAKEN) as (port, _):
        url = f"http://127.0.0.1:{port}/box?sp=c&sig=x"
        assert [send(tmp_path, url).sent for _ in range(2)] == [Sent.NAME_TAKEN] * 2, "told again, and never as sent"


@pytest.mark.parametrize(
    "first",
    [
        answer("503 Busy", "x-ms-error-code: ServerBusy"),
        answer("429 Slow"),
        answer("400 Bad", "x-ms-error-code: Md5Mismatch"),
    ],
)
def test_after_a_try_that_created_nothing_a_taken_name_is_anothers(
    first: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    with server(first, TAKEN, TAKEN) as (port, _):
        url = f"http://127.0.0.1:{port}/box?sp=c&sig=x"
        assert [send(tmp_path, url).sent for _ in range(2)] == [Sent.NAME_TAKEN] * 2


LOST = [
    answer("502 Bad Gateway"),
    answer("503 Busy"),
    answer("500 Oops", "x-ms-error-code: InternalError"),
    answer("504 Late"),
    b"",  # a connection that storage had closed just then ends so too
]


@pytest.mark.parametrize("first", LOST)
@pytest.mark.parametrize("second", [CREATED, TAKEN, answer("503 Busy") + CREATED], ids=["its own", "again", "late"])
def test_a_name_that_is_taken_after_a_lost_answer_proves_nothing_so_the_content_gets_a_name_of_its_own(
    first: bytes, second: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    own = f"a~{hashlib.sha256(b'a').hexdigest()[:16]}.jpg"
    answers = [first, TAKEN, *([answer("503 Busy"), TAKEN, CREATED] if b"503" in second else [second])]
    with server(*answers) as (port, asked):
        url = f"http://127.0.0.1:{port}/box?sp=c&sig=x"
        done = send(tmp_path, url)
        assert (done.sent, done.stored_as) == (Sent.SENT, own)
        assert asked[-1] == f"PUT /box/{own}?sp=c&sig=x HTTP/1.1".encode()
        again = send(tmp_path, url)
    assert (again.sent, again.stored_as, len(asked)) == (Sent.SENT_EARLIER, own, len(answers))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("a.jpg", "a~0123456789abcdef.jpg"),
        ("b/c.d/e", "b/c.d/e~0123456789abcdef"),
        ("x." + "y" * 40, "x." + "y" * 40 + "~0123456789abcdef"),
        ("a" * 1020 + ".jpg", "a" * 1003 + "~0123456789abcdef.jpg"),
        ("電" * 1024, "電" * 1007 + "~0123456789abcdef"),
    ],
)
def test_the_name_of_a_content_lies_in_the_same_folder_and_is_one_that_storage_takes(name: str, own: str) -> None:
    assert name_of_content(name, "0123456789abcdef" * 4) == own
    assert not unfit_name(own)


def test_a_connection_that_was_refused_has_created_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusebus.upload.sending.MAX_TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/box?sp=c&sig=x"
    assert send(tmp_path, url).sent is Sent.FAILED
    with server(TAKEN, port=port):
        assert send(tmp_path, url).sent is Sent.NAME_TAKEN


def test_after_a_call_that_was_killed_while_it_sent_the_content_arrives_all_the_same(tmp_path: Path) -> None:
    with server(TAKEN, CREATED) as (port, _):
        box, sha256 = f"http://127.0.0.1:{port}/box", hashlib.sha256(b"a").hexdigest()
        with Receipt(tmp_path / ".receipt") as receipt:
            receipt.note(Entry(box, "a.jpg", SENDING, sha256, 1, ""))
        done = send(tmp_path, f"{box}?sp=c&sig=x")
    assert (done.sent, done.stored_as[:2]) == (Sent.SENT, "a~")


def test_a_refusal_that_may_mean_two_things_is_no_success_when_the_link_has_worked_since(tmp_path: Path) -> None:
    with server(MISMATCH, answer("201 Created"), MISMATCH) as (port, _):
        url = f"http://127.0.0.1:{port}/box?si=g1&sig=x"
        assert send(tmp_path, url).sent is Sent.NAME_TAKEN
        (tmp_path / "b.jpg").write_bytes(b"b")
        with Receipt(tmp_path / ".receipt") as receipt:
            files = sorted(files_in(tmp_path), key=lambda file: file.name, reverse=True)
            done = send_files(read_link(url, datetime.now(UTC)), files, receipt, parallel=1)
    assert [one.sent for one in done] == [Sent.NAME_TAKEN, Sent.SENT]


def test_a_link_that_may_not_create_is_not_taken_for_a_taken_name(tmp_path: Path) -> None:
    with server(MISMATCH) as (port, _):
        outcome = send(tmp_path, f"http://127.0.0.1:{port}/box?si=g1&sig=x")
    assert "the link may not create files" in outcome.error


def test_no_failure_is_told_with_the_links_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusebus.upload.sending.MAX_TRIES", 1)
    (tmp_path / "a.jpg").write_bytes(b"a")
    link = Link("http", "127.0.0.1", 1, "/box", "sp=c &sig=secret")  # one that nobody has checked
    with Receipt(tmp_path / ".receipt") as receipt, server(b"") as (port, _):
        (outcome,) = send_files(replace(link, port=port), files_in(tmp_path), receipt)
    assert outcome.sent is Sent.FAILED and "secret" not in outcome.error


def test_https_goes_through_the_proxy_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusebus.upload.sending.MAX_TRIES", 1)
    with server(answer("403 Forbidden")) as (port, asked):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        outcome = send(tmp_path, "https://a.example/box?sp=c&sig=secret")
    assert asked[0].startswith(b"CONNECT a.example:443")
    assert outcome.sent is Sent.FAILED and "secret" not in outcome.error


def test_a_refusal_by_something_on_the_way_ends_the_call(tmp_path: Path) -> None:
    with server(answer("403 Forbidden")) as (port, _), pytest.raises(LinkRefused, match="something on the way"):
        send(tmp_path, f"http://127.0.0.1:{port}/box?sp=c&sig=x")
