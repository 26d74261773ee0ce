"""The notifier with a real ledger, real blobs and a real SMTP server: one report and one mail for each run."""

from __future__ import annotations

import asyncio
import email.policy
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import BusSettings, ConsumerSettings, Context
from fusebus.contracts import identity
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    BudgetCrossed,
    DuplicateFound,
    ImageAnalysed,
    ImageRejected,
    JobKind,
    Message,
    RejectReason,
    RunCheck,
    StageTimings,
    StoredBlob,
)
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, Retry
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings, MailState, RunState, UploadEntry
from fusebus.notifier import adapters
from fusebus.notifier.handler import Handler
from fusebus.notifier.mailers import NotSent, OutcomeUnknown
from fusebus.notifier.mailers.smtp import SmtpMailer
from fusebus.notifier.ports import Ports
from fusebus.notifier.settings import NotifierSettings, SmtpSettings, TeamsSettings
from fusebus.notifier.thumbnails import shrink_jpeg
from fusebus.servicebus.ca import ensure_authority
from fusebus.vision import decode, encode_jpeg
from fusebus.vision.boards import draw_board

NOW = datetime(2026, 11, 21, 11, tzinfo=UTC)


@dataclass
class Relay:
    """An SMTP server on a free port. `data` and `rcpt`: what it answers; `before_answer`: what it does before."""

    port: int = 0
    received: list[EmailMessage] = field(default_factory=list)
    data: str = "250 taken"
    rcpt: dict[str, str] = field(default_factory=dict)
    drops: int = 0
    """How many mails it takes and then drops the connection without a word."""
    silent: bool = False

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        if self.data.startswith("250"):
            self.received.append(BytesParser(policy=email.policy.default).parsebytes(envelope.content))
        if self.silent:
            await asyncio.sleep(60)
        if self.drops:
            self.drops -= 1
            server.transport.abort()
        return self.data


StartRelay = Callable[..., "asyncio.Future[Relay]"]


@pytest.fixture
async def start_relay() -> AsyncIterator[Callable[..., object]]:
    servers: list[asyncio.Server] = []

    async def start(tls: ssl.SSLContext | None = None, **behaviour: object) -> Relay:
        relay = Relay(**behaviour)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(relay, hostname="relay", loop=loop, tls_context=tls), "127.0.0.1", 0
        )
        servers.append(server)
        relay.port = server.sockets[0].getsockname()[1]
        return relay

    yield start
    for server in servers:
        server.close()


class NoDeadLetters:
    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list:
        return []


class Notifier:
    """The handler over real storage; `now` moves by hand."""

    def __init__(self, settings: NotifierSettings, ledger: Ledger, blobs: Blobs) -> None:
        self.now = NOW
        self.published: list[Outgoing] = []
        self.ledger, self.blobs = ledger, blobs
        runs_channel, alerts_channel = adapters.channels_of(settings)
        self._handler = Handler(
            Ports(
                settings=settings,
                ledger=ledger,
                results=blobs,
                dead_letters=NoDeadLetters(),
                publish=self._publish,
                mailer=adapters.mailer_of(settings),
                shrink=shrink_jpeg,
                clock=lambda: self.now,
                life=adapters.life(),
                runs_channel=runs_channel,
                alerts_channel=alerts_channel,
            )
        )

    async def _publish(self, outgoing: Sequence[Outgoing]) -> None:
        self.published += outgoing

    async def take(self, message: Message, attempt: int = 1) -> Outcome:
        return await self._handler(message, Context(envelope=Envelope(message=message, attempt=attempt)))

    async def read(self, name: str) -> bytes:
        return await self.blobs.read(layout.RESULTS, name, max_bytes=10_000_000)


StartNotifier = Callable[..., Notifier]


@pytest.fixture
async def start_notifier(
    ledger_settings: LedgerSettings, blob_settings: BlobSettings, tmp_path: Path
) -> AsyncIterator[StartNotifier]:
    async with Ledger(ledger_settings) as ledger, Blobs(blob_settings) as blobs:
        await ledger.create_tables()
        await blobs.create_container(layout.RESULTS)

        def start(relay: Relay | int | None, teams: int = 0) -> Notifier:
            port = relay.port if isinstance(relay, Relay) else relay or 25
            settings = NotifierSettings(
                bus=BusSettings(),
                consumer=ConsumerSettings(),
                blobs=blob_settings,
                ledger=ledger_settings,
                smtp=SmtpSettings(host="127.0.0.1", port=port, security="none"),
                mailer="folder" if relay is None else "smtp",
                mail_folder=tmp_path / "mail",
                mail_timeout_seconds=5,
                sender="fusebus@example.com",
                recipients=("ops@example.com",),
                teams=TeamsSettings(webhook=Secret(f"http://127.0.0.1:{teams}/workflows/7?sig=s" if teams else "")),
            )
            return Notifier(settings, ledger, blobs)

        yield start


async def enter(notifier: Notifier, supplier: str, *names: str) -> str:
    """Uploads named `names` with these ids; the run that they are in."""
    run_ids = {
        (
            await notifier.ledger.enter_upload(
                UploadEntry(
                    upload_id=identity.upload_id(f"in-{supplier}", name, "e"),
                    supplier=supplier,
                    container=f"in-{supplier}",
                    blob_name=name,
                    blob_etag="e",
                    size=1,
                    uploaded_at=NOW,
                    reject_reason=RejectReason.DAMAGED,
                ),
                NOW,
            )
        ).run_id
        for name in names
    }
    [run_id] = run_ids
    return run_id


def who(supplier: str, run_id: str, name: str) -> dict[str, str]:
    return {"upload_id": identity.upload_id(f"in-{supplier}", name, "e"), "run_id": run_id, "supplier": supplier}


async def analysed(notifier: Notifier, supplier: str, run_id: str, name: str) -> ImageAnalysed:
    """What a worker leaves: an annotated picture and the message about it."""
    analysis = identity.digest(supplier, name)
    picture = StoredBlob(container=layout.RESULTS, name=layout.annotated_name(run_id, analysis))
    await notifier.blobs.write(
        picture.container, picture.name, encode_jpeg(draw_board(3, (640, 480)).image), "image/jpeg"
    )
    return ImageAnalysed(
        **who(supplier, run_id, name),
        image_id="i",
        analysis_id=analysis,
        job_kind=JobKind.DETECT,
        model="demo-1",
        detections=4,
        best_score=0.98,
        annotated=picture,
        result=StoredBlob(container=layout.RESULTS, name=layout.result_name(run_id, analysis)),
        timings=StageTimings(),
        worker="w",
        analysed_at=NOW,
    )


async def finished_run(notifier: Notifier, supplier: str) -> str:
    """A run of three uploads, all final, still open."""
    names = ("site/a.jpg", "<script>.jpg\r\nBcc: x@example.com", "copy.jpg")
    run_id = await enter(notifier, supplier, *names)
    first = await analysed(notifier, supplier, run_id, names[0])
    assert await notifier.take(first) == Done()
    rejected = ImageRejected(
        **who(supplier, run_id, names[1]), reason=RejectReason.DAMAGED, explanation="Damaged.", rejected_at=NOW
    )
    assert await notifier.take(rejected) == Done()
    duplicate = DuplicateFound(
        **who(supplier, run_id, names[2]),
        image_id="i",
        duplicate_of=first.upload_id,
        duplicate_of_run=run_id,
        found_at=NOW,
    )
    assert await notifier.take(duplicate) == Done()
    return run_id


def check(supplier: str, run_id: str, sequence: int = 0) -> RunCheck:
    return RunCheck(run_id=run_id, supplier=supplier, sequence=sequence)


async def test_a_quiet_run_ends_with_a_report_and_one_mail(start_notifier, start_relay, supplier):
    relay = await start_relay()
    notifier = start_notifier(relay)
    run_id = await finished_run(notifier, supplier)
    again = await notifier.take(check(supplier, run_id))
    assert [outgoing.enqueue_at for outgoing in again.publish] == [NOW + timedelta(seconds=600)]
    notifier.now += timedelta(seconds=600)
    assert await notifier.take(check(supplier, run_id, 1)) == Done()
    assert await notifier.take(check(supplier, run_id, 1)) == Done()
    run = await notifier.ledger.run(run_id)
    assert run is not None
    assert run.state is RunState.COMPLETE

    [mail] = relay.received
    assert mail["Subject"] == f"3 photos from {supplier}: 1 analysed, 1 rejected, 1 duplicate"
    assert mail["Bcc"] is None
    [picture] = [part for part in mail.walk() if part.get_content_maintype() == "image"]
    assert decode(picture.get_content()).shape == (360, 480, 3)
    page = await notifier.read(layout.report_name(run_id))
    assert b"&lt;script&gt;.jpg" in page
    assert b"data:image/jpeg;base64," in page
    summary = msgspec.json.decode(await notifier.read(f"report/{run_id}/summary.json"))
    assert summary["counts"]["uploads"] == 3
    marker = await notifier.ledger.mail_marker(run_id)
    assert marker is not None
    assert (marker.state, marker.tries) == (MailState.DONE, 1)
    assert marker.message_id == mail["Message-ID"]


async def test_the_last_final_of_a_closed_run_completes_it_once_however_many_come_at_once(
    start_notifier, start_relay, supplier
):
    relay = await start_relay()
    notifier = start_notifier(relay)
    names = [f"{number}.jpg" for number in range(12)]
    run_id = await enter(notifier, supplier, *names)
    await notifier.ledger.close_run(run_id, NOW)
    messages = [await analysed(notifier, supplier, run_id, name) for name in names]
    other = start_notifier(relay)  # a second process
    outcomes = await asyncio.gather(*(each.take(message) for message in messages * 2 for each in (notifier, other)))
    assert set(outcomes) == {Done()}
    notifier.now += timedelta(seconds=30)
    await notifier.take(check(supplier, run_id))
    run = await notifier.ledger.run(run_id)
    assert run is not None
    assert run.state is RunState.COMPLETE
    assert len(relay.received) == 1


async def test_a_relay_that_refuses_connections_is_tried_again(start_notifier, start_relay, supplier, unused_tcp_port):
    notifier = start_notifier(unused_tcp_port)
    run_id = await finished_run(notifier, supplier)
    notifier.now += timedelta(seconds=600)
    outcome = await notifier.take(check(supplier, run_id))
    assert [outgoing.message for outgoing in outcome.publish] == [check(supplier, run_id, 1)]
    marker = await notifier.ledger.mail_marker(run_id)
    assert marker is not None
    assert marker.state is MailState.NOT_SENT

    relay = await start_relay()
    recovered = start_notifier(relay)
    recovered.now = notifier.now + timedelta(seconds=30)
    assert await recovered.take(check(supplier, run_id, 1)) == Done()
    assert len(relay.received) == 1


async def test_an_alert_that_meets_a_refused_connection_is_a_retry(start_notifier, unused_tcp_port):
    notifier = start_notifier(unused_tcp_port)
    crossed = BudgetCrossed(month="2026-11", share=0.8, spent=80, budget=100, currency="EUR", crossed_at=NOW)
    assert isinstance(await notifier.take(crossed), Retry)


async def test_a_relay_that_drops_after_the_content_gets_the_same_mail_again(start_notifier, start_relay, supplier):
    relay = await start_relay(drops=1)
    notifier = start_notifier(relay)
    run_id = await finished_run(notifier, supplier)
    notifier.now += timedelta(seconds=600)
    assert (await notifier.take(check(supplier, run_id))).publish
    marker = await notifier.ledger.mail_marker(run_id)
    assert marker is not None
    assert marker.state is MailState.INTENDED
    notifier.now += timedelta(seconds=30)
    assert await notifier.take(check(supplier, run_id, 1)) == Done()
    first, second = relay.received
    assert first["Message-ID"] == second["Message-ID"]


async def test_the_card_of_a_run_has_a_marker_of_its_own(start_notifier, supplier, unused_tcp_port):
    notifier = start_notifier(None, unused_tcp_port)
    run_id = await finished_run(notifier, supplier)
    notifier.now += timedelta(seconds=600)
    assert (await notifier.take(check(supplier, run_id))).publish, "nobody listens there"
    marker = await notifier.ledger.mail_marker(f"card-run-{run_id}")
    assert (marker.state, marker.tries) == (MailState.NOT_SENT, 1)
    assert (await notifier.ledger.mail_marker(run_id)).state is MailState.DONE
    taken: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        taken.append(await request.read())
        return web.Response(status=202)

    application = web.Application()
    application.router.add_post("/workflows/7", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        notifier.now += timedelta(seconds=30)
        assert await notifier.take(check(supplier, run_id, 1)) == Done()
        assert await start_notifier(None, unused_tcp_port).take(check(supplier, run_id, 2)) == Done()
    finally:
        await runner.cleanup()
    [card] = taken
    assert msgspec.json.decode(card)["type"] == "message"
    assert (await notifier.ledger.run(run_id)).state is RunState.COMPLETE
    assert (await notifier.ledger.mail_marker(f"card-run-{run_id}")).tries == 2


async def test_a_folder_takes_the_mail_where_there_is_no_relay(start_notifier, supplier, tmp_path):
    notifier = start_notifier(None)
    run_id = await finished_run(notifier, supplier)
    notifier.now += timedelta(seconds=600)
    assert await notifier.take(check(supplier, run_id)) == Done()
    [file] = (tmp_path / "mail").glob("*.eml")
    mail = BytesParser(policy=email.policy.default).parsebytes(file.read_bytes())
    assert mail["To"] == "ops@example.com"


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "fusebus@example.com", "one@example.com, two@example.com"
    message["Message-ID"] = "<x@example.com>"
    message.set_content("Grüße", cte="quoted-printable")
    return message


def mailer(relay: Relay, timeout: float = 5, **fields: object) -> SmtpMailer:
    settings = SmtpSettings(host="127.0.0.1", port=relay.port, security="none")
    return SmtpMailer(msgspec.structs.replace(settings, **fields), timeout)


@pytest.mark.parametrize(
    ("behaviour", "error", "passing"),
    [
        ({"data": "451 try later"}, NotSent, True),
        ({"data": "554 spam"}, NotSent, False),
        ({"rcpt": dict.fromkeys(("one@example.com", "two@example.com"), "550 unknown")}, NotSent, False),
        ({"rcpt": {"one@example.com": "550 unknown", "two@example.com": "451 greylisted"}}, NotSent, True),
        ({"rcpt": dict.fromkeys(("one@example.com", "two@example.com"), "530 log in first")}, NotSent, True),
        ({"drops": 1}, OutcomeUnknown, None),
        ({"silent": True}, OutcomeUnknown, None),
    ],
)
async def test_each_way_of_not_taking_a_mail_is_told_apart(start_relay, behaviour, error, passing):
    relay = await start_relay(**behaviour)
    with pytest.raises(error) as raised:
        await mailer(relay, timeout=0.5).send(letter())
    assert getattr(raised.value, "passing", None) is passing


async def test_a_mail_goes_to_those_who_are_taken(start_relay, caplog):
    relay = await start_relay(rcpt={"two@example.com": "550 unknown"})
    await mailer(relay).send(letter())
    assert len(relay.received) == 1
    assert "recipient refused" in caplog.text


async def test_without_the_encryption_asked_for_nothing_is_sent(start_relay):
    relay = await start_relay()
    with pytest.raises(NotSent):
        await mailer(relay, security="starttls", username="u", password=Secret("p")).send(letter())
    assert relay.received == []


def test_a_password_never_travels_in_the_clear():
    with pytest.raises(ValueError, match="FUSEBUS_SMTP_SECURITY"):
        mailer(Relay(port=25), username="u", password=Secret("p"))


async def test_a_relay_that_never_greets_is_not_waited_for():
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with silent:
        with pytest.raises(NotSent):
            await mailer(Relay(port=silent.sockets[0].getsockname()[1]), timeout=0.3).send(letter())


async def test_over_tls_with_the_relays_own_authority_a_mail_arrives(start_relay, tmp_path):
    authority = ensure_authority(tmp_path, ("127.0.0.1",))
    relay = await start_relay(tls=authority.server_context())
    await mailer(relay, security="starttls", ca_file=str(authority.ca_path)).send(letter())
    assert len(relay.received) == 1
    with pytest.raises(NotSent):  # an authority that the system doesn't know
        await mailer(relay, security="starttls").send(letter())
