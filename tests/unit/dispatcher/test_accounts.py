"""The dispatcher's accounts: samples into the books, alerts told once even across a crash, unknown is not zero."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.bus import BusError
from fusebus.contracts.messages import BudgetCrossed
from fusebus.costs import DailyHours, DailyPrice, Term, starting_prices
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.accounts import Accounts, PoolCosts
from fusebus.host import SettingsError
from fusebus.ledger import CostSample, LedgerUnavailable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = CostSettings(budget_per_month=100, currency="USD", region="eastus")
PER_HOUR = 0.526


class Seen(msgspec.Struct, frozen=True):
    id: str = "a"
    state: str = "running"
    dedicated: bool = True
    allocated_at: datetime | None = None
    since: datetime | None = None


class Books:
    """A ledger in memory that can break; rows that are there already stay, as in the tables."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, datetime], CostSample] = {}
        self.told: set[tuple[str, str]] = set()
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise LedgerUnavailable("broken for this test")

    async def add_cost_sample(self, sample: CostSample) -> None:
        self._check()
        self.samples.setdefault((sample.pool, sample.started_at), sample)

    async def cost_samples(self, month: str):
        self._check()
        for sample in sorted(self.samples.values(), key=lambda sample: (sample.pool, sample.started_at)):
            if f"{sample.started_at:%Y-%m}" == month:
                yield sample

    async def budget_alerts(self, month: str) -> frozenset[str]:
        self._check()
        return frozenset(mark for one, mark in self.told if one == month)

    async def note_budget_alert(self, month: str, mark: str, told_at: datetime) -> bool:
        self._check()
        self.told.add((month, mark))
        return True


class Told:
    """A publisher that remembers, and can fail."""

    def __init__(self) -> None:
        self.messages: list[BudgetCrossed] = []
        self.broken = False

    async def publish(self, outgoing) -> None:
        if self.broken:
            raise BusError("broken for this test")
        self.messages += [one.message for one in outgoing]

    @property
    def marks(self) -> list[str]:
        return [message.mark.split("-")[0] for message in self.messages]


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def told() -> Told:
    return Told()


def opened(books: Books, told: Told, settings: CostSettings = SETTINGS) -> Accounts:
    return Accounts(settings, books, told, [PoolCosts("gpu", "NC4as_T4_v3", "detect")])


def spend(books: Books, cost: float, at: datetime = NOW - timedelta(hours=1), currency: str = "USD") -> None:
    sample = CostSample(
        pool="gpu",
        started_at=at,
        ended_at=at + timedelta(seconds=60),
        node_seconds=60,
        cost=cost,
        currency=currency,
        estimated=True,
    )
    books.samples[("gpu", at)] = sample


async def test_what_nodes_cost_is_written_and_counts_against_the_budget(books: Books, told: Told) -> None:
    accounts = opened(books, told)
    await accounts.begin(NOW)
    for minutes in (0, 30, 60):
        accounts.saw("gpu", [Seen(), Seen(id="b", dedicated=False)], NOW + timedelta(minutes=minutes))
        verdict = await accounts.settle(NOW + timedelta(minutes=minutes))
    written = sum(sample.cost for sample in books.samples.values())
    assert written == pytest.approx(PER_HOUR + 0.0627)
    ending = written / 4  # a quarter of an hour of both
    assert verdict.left == pytest.approx(100 - written - ending)
    assert told.messages == []


async def test_each_alert_is_told_once_in_spite_of_restarts(books: Books, told: Told) -> None:
    spend(books, 85)
    for _ in range(3):
        accounts = opened(books, told)
        await accounts.begin(NOW)
        for seconds in range(3):
            await accounts.settle(NOW + timedelta(seconds=seconds))
        await accounts.close(NOW)
    assert told.marks == ["0.5", "0.8"]


async def test_an_alert_that_could_not_be_told_is_told_by_a_later_look(books: Books, told: Told) -> None:
    spend(books, 55)
    accounts = opened(books, told)
    told.broken = True
    await accounts.settle(NOW)
    assert books.told == set()
    told.broken = False
    await accounts.settle(NOW)
    await accounts.settle(NOW)
    assert told.marks == ["0.5"]


async def test_a_crash_between_telling_and_noting_tells_again_under_the_same_id(books: Books, told: Told) -> None:
    spend(books, 55)
    await opened(books, told).settle(NOW)
    books.told.clear()
    await opened(books, told).settle(NOW + timedelta(minutes=5))
    assert [message.mark for message in told.messages] == ["0.5-of-100-USD"] * 2


async def test_a_spent_budget_stops_buying_and_says_what_that_does(books: Books, told: Told) -> None:
    spend(books, 101)
    accounts = opened(books, told)
    verdict = await accounts.settle(NOW)
    assert verdict.left == 0 and not verdict.may_buy
    assert "Buying goes on when the budget is raised" in told.messages[-1].consequence


async def test_a_new_month_buys_again_and_tells_anew(books: Books, told: Told) -> None:
    spend(books, 101)
    accounts = opened(books, told)
    await accounts.settle(NOW)
    december = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC)
    assert (await accounts.settle(december)).left == 100
    spend(books, 60, december)
    again = opened(books, told)
    await again.settle(december + timedelta(hours=1))
    assert told.marks == ["0.5", "0.8", "0.9", "1", "forecast", "0.5"]


async def test_books_that_can_not_be_read_stop_buying_until_they_can(books: Books, told: Told) -> None:
    books.broken = True
    accounts = opened(books, told)
    accounts.saw("gpu", [Seen()], NOW)
    assert (await accounts.settle(NOW)).left is None
    accounts.saw("gpu", [Seen()], NOW + timedelta(hours=1))
    assert (await accounts.settle(NOW + timedelta(hours=1))).left is None
    books.broken = False
    verdict = await accounts.settle(NOW + timedelta(hours=1))
    assert verdict.left == pytest.approx(100 - PER_HOUR * 1.25)
    assert sum(sample.cost for sample in books.samples.values()) == pytest.approx(PER_HOUR)


async def test_what_was_spent_before_the_currency_was_changed_counts_at_the_lists_rate(
    books: Books, told: Told
) -> None:
    spend(books, 79, currency="GBP")
    assert "100.00 of 100.00 USD spent" in (await opened(books, told).settle(NOW)).because


async def test_spending_in_a_currency_without_a_rate_is_unknown_not_zero_and_logged(
    books: Books, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    spend(books, 50, currency="JPY")
    accounts = opened(books, told)
    assert (await accounts.settle(NOW)).left is None
    assert "samples in JPY" in caplog.text
    assert (await accounts.settle(datetime(2026, 12, 1, 1, tzinfo=UTC))).left == 100


async def test_a_restart_goes_on_counting_where_the_last_sample_ended(books: Books, told: Told) -> None:
    spend(books, 1, NOW - timedelta(seconds=60))
    accounts = opened(books, told)
    await accounts.begin(NOW + timedelta(hours=1))
    accounts.saw("gpu", [Seen(allocated_at=NOW - timedelta(hours=1))], NOW + timedelta(hours=1))
    await accounts.settle(NOW + timedelta(hours=1))
    assert sum(sample.cost for sample in books.samples.values()) == pytest.approx(1 + PER_HOUR)


async def test_what_ran_while_the_books_could_not_be_read_at_the_start_is_counted_once_they_can(
    books: Books, told: Told
) -> None:
    spend(books, 1, NOW - timedelta(seconds=60))
    accounts = opened(books, told)
    books.broken = True
    for minutes in (60, 90, 120):
        now = NOW + timedelta(minutes=minutes)
        books.broken = minutes < 120
        accounts.saw("gpu", [Seen(allocated_at=NOW - timedelta(hours=1))] if minutes > 60 else None, now)
        await accounts.settle(now)
    assert sum(sample.cost for sample in books.samples.values()) == pytest.approx(1 + 2 * PER_HOUR)
    assert sum(sample.node_seconds for sample in books.samples.values()) == pytest.approx(60 + 7200)


async def test_a_new_term_counts_nothing_twice_though_the_last_ones_samples_are_not_written_yet(
    books: Books, told: Told
) -> None:
    accounts = opened(books, told)
    await accounts.begin(NOW)
    accounts.saw("gpu", [Seen()], NOW)
    books.broken = True
    await accounts.close(NOW + timedelta(hours=1))
    books.broken = False
    await accounts.begin(NOW + timedelta(hours=2))
    accounts.saw("gpu", [Seen(allocated_at=NOW - timedelta(hours=1))], NOW + timedelta(hours=2))
    verdict = await accounts.settle(NOW + timedelta(hours=2))
    assert sum(sample.cost for sample in books.samples.values()) == pytest.approx(2 * PER_HOUR)
    assert verdict.left == pytest.approx(100 - 2.25 * PER_HOUR)


async def test_a_forecast_above_the_budget_is_told_before_it_is_spent(books: Books, told: Told) -> None:
    for day in range(1, 21):
        spend(books, 4, datetime(2026, 11, day, 12, tzinfo=UTC))
    await opened(books, told).settle(NOW)
    assert told.marks == ["0.5", "0.8", "forecast"]
    assert told.messages[-1].foretold and told.messages[-1].forecast == pytest.approx(80 + 2 + 9 * 4)


def test_a_pool_whose_price_is_unknown_is_refused_at_the_start(books: Books, told: Told) -> None:
    with pytest.raises(SettingsError, match=r"no price for Standard_NC6s_v3.*pool old can't be metered"):
        Accounts(SETTINGS, books, told, [PoolCosts("old", "NC6s_v3")])


def test_prices_of_another_region_than_the_batch_accounts_are_warned_of_once(
    books: Books, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    own = PoolCosts("own", "NC4as_T4_v3", region="uksouth")
    accounts = Accounts(SETTINGS, books, told, [PoolCosts("gpu", "NC4as_T4_v3"), own])
    for region in ("", "local", "East US", "eastus"):
        accounts.check_region("gpu", region)
    assert caplog.text == ""
    for _ in range(2):
        accounts.check_region("gpu", "uksouth")
        accounts.check_region("own", "uksouth")
    (record,) = caplog.records
    assert "nodes of gpu are in uksouth" in record.getMessage() and "FUSEBUS_COSTS_REGION" in record.getMessage()


async def test_daily_prices_are_metered_and_foretold(books: Books, told: Told) -> None:
    night = DailyPrice(
        vm_size="Standard_NC4as_T4_v3", region="eastus", term=Term.DEDICATED, per_hour=0.1,
        hours=DailyHours(begins="13:00", ends="14:00"),
    )  # fmt: skip
    prices = msgspec.structs.replace(starting_prices(), daily=(night,))
    accounts = Accounts(SETTINGS, books, told, [PoolCosts("gpu", "NC4as_T4_v3", "detect")], prices=prices)
    await accounts.begin(NOW)
    ahead = [(at, rates.dedicated) for at, rates in accounts.coming(NOW)["gpu"]]
    assert ahead == [(NOW + timedelta(hours=1), 0.1), (NOW + timedelta(hours=2), PER_HOUR)]
    for minutes in range(0, 181, 10):
        accounts.saw("gpu", [Seen()], NOW + timedelta(minutes=minutes))
        await accounts.settle(NOW + timedelta(minutes=minutes))
    assert sum(sample.cost for sample in books.samples.values()) == pytest.approx(2 * PER_HOUR + 0.1)
