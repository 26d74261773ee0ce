"""Cards on their way: a real web server in the place of Teams, that takes, refuses, stalls, redirects or goes away."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusebus.contracts.messages import BudgetCrossed, CloseRun, UploadsHeld
from fusebus.contracts.outcomes import Done, Retry
from fusebus.host import Secret
from fusebus.ledger import MailState, RunState
from fusebus.notifier import adapters
from fusebus.notifier.mailers import NotSent, OutcomeUnknown
from fusebus.notifier.mailers.teams import LONGEST_PAUSE_SECONDS, TeamsWebhook
from fusebus.notifier.settings import TeamsSettings

SIGNATURE = "canaryOfTheWebhook-77_c4be"
SETTING = "FUSEBUS_TEAMS_WEBHOOK"


@dataclass
class Teams:
    """A webhook. `answers`: what it says to the next posts, then 202; a negative status: the connection breaks."""

    port: int = 0
    cards: list[dict] = field(default_factory=list)
    """Posts that it took."""
    posts: int = 0
    answers: list[web.Response | int | float] = field(default_factory=list)
    """A response, a status, or a number of seconds in which nothing is said."""

    @property
    def address(self) -> str:
        path = "workflows/77/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0"
        return f"http://127.0.0.1:{self.port}/{path}&sig={SIGNATURE}"

    async def handle(self, request: web.Request) -> web.Response:
        self.posts += 1
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = 202
        if isinstance(answer, int) and answer < 0:
            request.transport.abort()  # type: ignore[union-attr]
            return web.Response()
        response = answer if isinstance(answer, web.Response) else web.Response(status=answer)
        if response.status == 202:
            assert request.method == "POST" and request.query["sig"] == SIGNATURE
            assert request.content_type == "application/json"
            self.cards.append(json.loads(await request.read()))
        return response

    @property
    def titles(self) -> list[str]:
        """The first line of each card."""
        return [card["attachments"][0]["content"]["body"][0]["inlines"][0]["text"] for card in self.cards]


@pytest.fixture
async def start_teams() -> AsyncIterator[Callable[..., object]]:
    runners: list[web.AppRunner] = []

    async def start(*answers: web.Response | int | float) -> Teams:
        teams = Teams(answers=list(answers))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", teams.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        teams.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return teams

    yield start
    for runner in runners:
        await runner.cleanup()


def webhook(teams: Teams, timeout: float = 5.0, **more: object) -> TeamsWebhook:
    return TeamsWebhook(Secret(teams.address), SETTING, timeout, **more)


def show(world, teams: Teams, timeout: float = 5.0) -> None:
    """Let the world's notifier post runs and alerts there."""
    world.runs_channel = world.alerts_channel = webhook(teams, timeout)
    world.restart()


async def finish(world, make) -> object:
    world.enter("u1")
    assert await world.take(make.analysed("u1")) == Done()
    return await world.take(CloseRun(run_id=make.run_id, supplier="northgrid", requested_by="a person"))


def crossed(world) -> BudgetCrossed:
    return BudgetCrossed(
        month="2026-11", share=0.8, spent=80, budget=100, currency="EUR", crossed_at=world.now - timedelta(seconds=1)
    )


async def test_a_run_gets_one_card_beside_its_mail_however_often_it_is_looked_at(world, make, start_teams):
    teams = await start_teams()
    show(world, teams)
    assert await finish(world, make) == Done()
    for sequence in range(3):
        world.restart()
        assert await world.take(make.check(sequence)) == Done()
    assert teams.titles == ["1 photo from northgrid"]
    assert len(world.mailer.sent) == 1
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.mails[f"card-run-{make.run_id}"].state is MailState.DONE


async def test_an_alert_that_is_delivered_again_and_twice_at_once_is_one_card(world, start_teams):
    teams = await start_teams(0.05)
    show(world, teams)
    outcomes = await asyncio.gather(*(world.take(crossed(world)) for _ in range(2)))
    assert Done() in outcomes
    for _ in range(2):
        assert await world.take(crossed(world)) == Done()
    assert teams.titles == ["Budget 2026-11: 80% spent"]
    assert (teams.posts, len(world.mailer.sent)) == (1, 1)


async def test_runs_and_alerts_may_have_channels_of_their_own(world, make, start_teams):
    runs, alerts = await start_teams(), await start_teams()
    settings = TeamsSettings(webhook=Secret(runs.address), alerts_webhook=Secret(alerts.address))
    world.settings = msgspec.structs.replace(world.settings, teams=settings)
    world.runs_channel, world.alerts_channel = adapters.channels_of(world.settings)
    world.restart()
    await finish(world, make)
    await world.take(crossed(world))
    assert (runs.titles, alerts.titles) == (["1 photo from northgrid"], ["Budget 2026-11: 80% spent"])


async def test_what_is_held_is_shown_only_where_operators_are_told_in_the_suppliers_place(world, start_teams):
    teams = await start_teams()
    show(world, teams)
    held = UploadsHeld(supplier="acme", because="suspended", day="2026-11-21", held_at=world.now, email="a@b.example")
    assert await world.take(held) == Done()
    assert await world.take(msgspec.structs.replace(held, day="2026-11-22", email="")) == Done()
    assert len(world.mailer.sent) == 2
    assert teams.titles == ["Uploads of acme are held"]


async def test_without_recipients_of_mail_the_card_still_comes_and_the_report_is_written_once(world, make, start_teams):
    teams = await start_teams(503)
    world.configure(recipients=())
    show(world, teams)
    assert (await finish(world, make)).publish
    del world.results[f"report/{make.run_id}/index.html"]
    assert await world.take(make.check()) == Done()
    assert f"report/{make.run_id}/index.html" not in world.results
    assert (world.mailer.tries, len(teams.cards)) == (0, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_webhook_that_can_not_now_gets_the_card_later_and_the_mail_does_not_wait(
    world, make, start_teams, status
):
    teams = await start_teams(status)
    show(world, teams)
    assert (await finish(world, make)).publish, "another look follows"
    assert (len(world.mailer.sent), world.run.state) == (1, RunState.CLOSED)
    assert world.ledger.mails[f"card-run-{make.run_id}"].state is MailState.NOT_SENT
    world.pass_time(30)
    assert await world.take(make.check()) == Done()
    assert (len(teams.cards), len(world.mailer.sent)) == (1, 1)
    assert world.run.state is RunState.COMPLETE


async def test_an_alert_whose_card_did_not_go_out_is_tried_again_without_a_second_mail(world, start_teams):
    teams = await start_teams(503)
    show(world, teams)
    assert isinstance(await world.take(crossed(world)), Retry)
    assert await world.take(crossed(world), attempt=2) == Done()
    assert (len(teams.cards), len(world.mailer.sent)) == (1, 1)


async def test_a_refused_card_holds_nothing_and_the_operators_get_one_mail_a_day_that_says_so(
    world, make, start_teams, caplog
):
    gone = json.dumps({"error": {"code": "WorkflowNotFound", "message": "it is gone"}})
    teams = await start_teams(*(web.Response(status=404, text=gone) for _ in range(3)))
    show(world, teams)
    assert await finish(world, make) == Done()
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.mails[f"card-run-{make.run_id}"].state is MailState.REFUSED
    assert "card will not be sent: FUSEBUS_TEAMS_WEBHOOK: answered 404 (WorkflowNotFound)" in caplog.text
    await world.take(crossed(world))
    summary, told, alert = world.mailer.sent
    assert told["Subject"] == "Teams takes no cards from us"
    assert "FUSEBUS_TEAMS_WEBHOOK" in told.get_content() and "404 (WorkflowNotFound)" in told.get_content()
    assert "photo" in summary["Subject"] and "Budget" in alert["Subject"]
    world.pass_time(86_400)
    await world.take(msgspec.structs.replace(crossed(world), share=0.9))
    assert [mail["Subject"] for mail in world.mailer.sent[3:]].count("Teams takes no cards from us") == 1


async def test_a_webhook_that_stays_away_for_an_hour_is_given_up(world, make, start_teams):
    teams = await start_teams(503, 503)
    show(world, teams)
    assert (await finish(world, make)).publish
    world.pass_time(3_601)
    assert await world.take(make.check()) == Done()
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.mails[f"card-run-{make.run_id}"].state is MailState.REFUSED


@pytest.mark.parametrize("lost", [-1, 502, 504])
async def test_a_lost_answer_is_repeated_for_five_minutes_only(world, make, start_teams, lost):
    teams = await start_teams(*[lost] * 100)
    show(world, teams)
    outcome, sequence = await finish(world, make), 0
    while outcome.publish:
        world.pass_time(30)
        outcome = await world.take(make.check(sequence))
        sequence += 1
        assert sequence < 50
    assert 2 <= teams.posts <= 10
    assert world.ledger.mails[f"card-run-{make.run_id}"].state is MailState.UNKNOWN
    assert (world.run.state, len(world.mailer.sent)) == (RunState.COMPLETE, 1)


@pytest.mark.parametrize("asked", ["40", "at a time"])
async def test_nothing_is_posted_while_the_webhook_asks_for_a_pause(start_teams, asked):
    clock = [1000.0]
    if asked != "40":
        asked = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True).replace("+0000", "GMT")
    teams = await start_teams(web.Response(status=429, headers={"Retry-After": asked}))
    channel = webhook(teams, monotonic=lambda: clock[0])
    for seconds in (0, 1, 30):
        clock[0] += seconds
        with pytest.raises(NotSent) as raised:
            await channel.post(b"{}")
        assert raised.value.passing
    assert teams.posts == 1
    clock[0] += 10
    await channel.post(b"{}")
    assert len(teams.cards) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "99999999999999999999", "Sat, 99 Nov 2026", ""])
async def test_a_senseless_pause_is_none_or_the_longest(start_teams, asked):
    clock = [1000.0]
    teams = await start_teams(web.Response(status=503, headers={"Retry-After": asked}))
    channel = webhook(teams, monotonic=lambda: clock[0])
    with pytest.raises(NotSent):
        await channel.post(b"{}")
    clock[0] += LONGEST_PAUSE_SECONDS
    await channel.post(b"{}")


@pytest.mark.parametrize(
    ("answer", "error", "passing"),
    [
        (400, NotSent, False),
        (401, NotSent, False),
        (404, NotSent, False),
        (408, NotSent, True),
        (413, NotSent, False),
        (429, NotSent, True),
        (500, NotSent, True),
        (502, OutcomeUnknown, None),
        (504, OutcomeUnknown, None),
        (-1, OutcomeUnknown, None),
        (30.0, OutcomeUnknown, None),
    ],
)
async def test_each_way_of_not_taking_a_card_is_told_apart(start_teams, answer, error, passing):
    teams = await start_teams(answer)
    with pytest.raises(error) as raised:
        await webhook(teams, timeout=0.3).post(b"{}")
    assert getattr(raised.value, "passing", None) is passing


async def test_a_redirect_to_another_host_is_refused_and_not_followed(start_teams):
    other = await start_teams()
    teams = await start_teams(web.Response(status=307, headers={"Location": other.address}))
    with pytest.raises(NotSent, match="answered 307") as raised:
        await webhook(teams).post(b"{}")
    assert not raised.value.passing
    assert other.posts == 0


async def test_who_does_not_answer_the_call_is_tried_later(unused_tcp_port):
    with pytest.raises(NotSent) as raised:
        await webhook(Teams(port=unused_tcp_port)).post(b"{}")
    assert raised.value.passing


@pytest.mark.parametrize(
    "address",
    [
        f"http://example.com/x?sig={SIGNATURE}",
        f"ftp://example.com/x?sig={SIGNATURE}",
        f"https:///x?sig={SIGNATURE}",
        f"https://[::1/x?sig={SIGNATURE}",
        f"https://example.com:{SIGNATURE}/x",
        f"https://user:{SIGNATURE}@example.com/x",
        f"https://example.com/x y?sig={SIGNATURE}",
        SIGNATURE,
    ],
)
def test_an_address_that_is_none_or_would_travel_in_the_clear_is_refused_without_being_told(address):
    with pytest.raises(ValueError, match=SETTING) as raised:
        TeamsWebhook(Secret(address), SETTING, 5.0)
    assert SIGNATURE not in "".join(traceback.format_exception(raised.value))


async def test_the_address_stands_in_no_log_marker_span_or_error_however_a_post_ends(
    world, make, start_teams, unused_tcp_port, caplog
):
    caplog.set_level(logging.DEBUG)
    told = json.dumps({"error": {"code": SIGNATURE, "message": f"no {SIGNATURE}"}})
    here = f"http://127.0.0.1:1/?sig={SIGNATURE}"
    ways = [
        web.Response(status=404, text=told, headers={"X-Asked": here}, reason=SIGNATURE),
        web.Response(status=302, headers={"Location": here}),
        web.Response(status=429, headers={"Retry-After": here}),
        *(500, 504, -1, 30.0, 202),
    ]
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    errors: list[str] = []

    async def post(channel: TeamsWebhook) -> None:
        with provider.get_tracer("canary").start_as_current_span("post"):
            await channel.post(b"{}")

    for way in ways:
        teams = await start_teams(way, way)
        show(world, teams, timeout=0.2)
        await finish(world, make)
        await world.take(crossed(world))
        try:
            await post(webhook(teams, timeout=0.2))
        except (NotSent, OutcomeUnknown) as error:
            errors += traceback.format_exception(error)
        world.ledger.runs_by_id.clear()
        if way != 202:
            world.ledger.mails.pop(f"card-run-{make.run_id}", None)
    with pytest.raises(NotSent) as raised:
        await post(webhook(Teams(port=unused_tcp_port)))
    errors += traceback.format_exception(raised.value)
    records = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    markers = [repr(marker) for marker in world.ledger.mails.values()]
    mails = [mail.as_string() for mail in world.mailer.sent]
    exported = [span.to_json() for span in spans.get_finished_spans()]
    assert len(exported) == len(ways) + 1 and errors and markers and any("card" in record for record in records)
    for text in (*records, *markers, *mails, *exported, *errors, repr(world.settings)):
        assert SIGNATURE not in text
