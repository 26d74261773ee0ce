"""What happens between the sender and a machine that is no storage."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusebus.upload import FileOutcome, LinkRefused, Receipt, Sent, files_in, send_files
from fusebus.upload.link import read_link


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Gives each connection the next of `answers`; what each asked for (its first line) is kept."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def serve() -> None:
        for answer in answers:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                asked.append(client.recv(65536).partition(b"\r\n")[0])
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], asked
    listener.close()


def answer(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""]).encode()


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
    taken = answer("409 Conflict", "x-ms-error-code: BlobAlreadyExists")
    with server(taken, taken) as (port, _):
        url = f"http://127.0.0.1:{port}/box?sp=c&sig=x"
        assert [send(tmp_path, url).sent for _ in range(2)] == [Sent.NAME_TAKEN] * 2, "told again, and never as sent"


def test_a_link_that_may_not_create_is_not_taken_for_a_taken_name(tmp_path: Path) -> None:
    with server(answer("403 No", "x-ms-error-code: AuthorizationPermissionMismatch")) as (port, _):
        outcome = send(tmp_path, f"http://127.0.0.1:{port}/box?si=g1&sig=x")
    assert "the link may not create files" in outcome.error


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
