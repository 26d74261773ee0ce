"""The mailbox and the health check, each against a real server."""

import json
import smtplib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage

import catcher
import healthy
import pytest
from aiosmtpd.controller import Controller


@dataclass(frozen=True)
class Mailbox:
    smtp_port: int
    url: str


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = catcher.Box()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    smtp = Controller(box, hostname="127.0.0.1", port=port)
    smtp.start()
    web = catcher.http_server(box, 0, "127.0.0.1")
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Mailbox(port, f"http://127.0.0.1:{web.server_address[1]}")
    web.shutdown()
    thread.join()
    web.server_close()
    smtp.stop()


def fetched(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers["Content-Security-Policy"]


def send(mailbox: Mailbox, html: str) -> None:
    mail = EmailMessage()
    mail["Subject"] = "6 photos <b>from</b> acme"
    mail["Message-ID"] = "<run-1.abc@localhost>"
    mail.set_content("plain")
    mail.add_alternative(html, subtype="html")
    mail.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<one@localhost>")
    with smtplib.SMTP("127.0.0.1", mailbox.smtp_port) as client:
        client.send_message(mail, "fusebus@localhost", ["operations@localhost"])


def test_a_mail_is_listed_and_can_be_read_as_it_came(mailbox: Mailbox) -> None:
    send(mailbox, "<p>hello</p>")
    listed = json.loads(fetched(f"{mailbox.url}/api/v1/messages")[0])
    (mail,) = listed["messages"]
    assert (listed["total"], mail["MessageID"]) == (1, "run-1.abc@localhost")
    assert mail["To"] == [{"Name": "", "Address": "operations@localhost"}]
    raw, _ = fetched(f"{mailbox.url}/api/v1/message/{mail['ID']}/raw")
    assert b"Message-ID: <run-1.abc@localhost>" in raw


def test_a_mail_is_shown_with_its_pictures_and_without_scripts(mailbox: Mailbox) -> None:
    send(mailbox, "<img src='cid:one@localhost'><script>alert(1)</script>")
    page, policy = fetched(f"{mailbox.url}/view/1.html")
    assert b"data:image/png;base64,iVBORw==" in page
    assert "sandbox" in policy and "default-src 'none'" in policy
    assert b"&lt;b&gt;from" in fetched(f"{mailbox.url}/")[0]


def test_an_unknown_mail_is_not_found(mailbox: Mailbox) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(f"{mailbox.url}/view/7.html")


def test_the_health_check_tells_an_answer_from_silence_and_from_refusal(mailbox: Mailbox) -> None:
    assert healthy.answers(f"smtp://127.0.0.1:{mailbox.smtp_port}")
    assert healthy.answers(f"{mailbox.url}/readyz")
    assert not healthy.answers(f"{mailbox.url}/view/7.html")
    assert not healthy.answers(f"amqp://127.0.0.1:{mailbox.smtp_port}")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert not healthy.answers(f"http://127.0.0.1:{closed.getsockname()[1]}/")
