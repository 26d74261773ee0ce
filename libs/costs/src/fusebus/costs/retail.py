"""Reads VM prices from the Azure Retail Prices API, page by page, into a new price list."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fusebus.costs.prices import Price, PriceError, PriceList, Term
from fusebus.costs.sizes import PREFIX, SIZES, full_name

API_VERSION = "2023-01-01-preview"
MOST_PAGES = 50  # of one size; a page has up to 1,000 items, a size a few dozen
MOST_BYTES = 8_000_000  # of one page; real ones have less than 1 MB
TRIES = 5  # of one page
PAGE_SECONDS = 30.0  # for one try
FIRST_PAUSE_SECONDS = 1.0  # doubled with each further try, up to half of it more at random
LONGEST_PAUSE_SECONDS = 60.0  # also of what Retry-After asks for
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
SUSPICIOUS_FACTOR = 5.0  # a price that changed by more is named: it may be another product's

_OTHER_PRODUCTS = ("windows", "low priority", "promo", "dedicated host", "cloud services", "cloudservices")
_TERM_HOURS = {"1 Year": (Term.RESERVED_1_YEAR, 8_760.0), "3 Years": (Term.RESERVED_3_YEARS, 26_280.0)}


class _Item(msgspec.Struct, frozen=True, rename="camel"):
    """One price as the API has it; fields that are not needed are passed over."""

    arm_sku_name: str
    arm_region_name: str
    retail_price: float
    unit_of_measure: str
    currency_code: str
    type: str
    product_name: str
    sku_name: str
    effective_start_date: str = ""
    reservation_term: str = ""


class _Page(msgspec.Struct, frozen=True, rename="pascal"):
    items: tuple[_Item, ...]
    billing_currency: str = ""
    next_page_link: str | None = None


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """The new list, and what people should look at before they trust it."""

    prices: PriceList
    missing: tuple[str, ...]
    """`size region term` that the API has no price for; nothing stands in for them."""
    suspicious: tuple[str, ...]
    """Prices that changed a lot since the list before."""


async def refresh(
    url: str,
    before: PriceList,
    *,
    regions: Sequence[str],
    currency: str,
    now: datetime,
    sizes: Sequence[str] = (),
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
) -> Refreshed:
    """A list of these VM sizes (none: all of SIZES) in these regions. Raises PriceError, and then nothing has changed.

    Service prices stay those of `before`, in the new currency; it must know a rate for it.
    """
    sizes = [full_name(size) for size in sizes] or [size.name for size in SIZES]
    found: dict[tuple[str, str, Term], Price] = {}
    timeout = aiohttp.ClientTimeout(total=PAGE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for size in sizes:
            async for item in _items(session, url, size, currency, first_pause_seconds):
                price = _price(item, currency)
                if price is not None and price.region in regions:
                    _keep_cheapest(found, price)
    if not found:
        raise PriceError(f"{url} has no price for {len(sizes)} sizes in {', '.join(regions)}")
    converted = before.into(currency)
    prices = PriceList(
        date=now.astimezone(UTC).date(),
        currency=currency,
        source=f"Azure Retail Prices API ({url}), read {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC: retail, without tax.",
        prices=tuple(found[key] for key in sorted(found)),
        services=converted.services,
        exchange_rates=converted.exchange_rates,
        daily=converted.daily,
    )
    return Refreshed(
        prices=prices, missing=tuple(_missing(found, sizes, regions)), suspicious=tuple(_suspicious(found, converted))
    )


async def _items(
    session: aiohttp.ClientSession, url: str, size: str, currency: str, first_pause_seconds: float
) -> AsyncIterator[_Item]:
    """All prices of one size, following NextPageLink."""
    parameters: dict[str, str] | None = {
        "api-version": API_VERSION,
        "currencyCode": f"'{currency}'",
        "meterRegion": "'primary'",  # a price that holds in many regions is listed once for each, and once for all
        "$filter": f"serviceName eq 'Virtual Machines' and armSkuName eq '{size}'",
    }
    following: str | None = url
    seen: set[str] = set()
    for _ in range(MOST_PAGES):
        assert following is not None
        page = await _page(session, following, parameters, first_pause_seconds)
        for item in page.items:
            yield item
        seen.add(following)
        following, parameters = page.next_page_link or None, None
        if following is None:
            return
        there, here = urlsplit(following), urlsplit(url)
        if (there.scheme, there.hostname) != (here.scheme, here.hostname) or following in seen:
            raise PriceError(f"{url} points to {following[:200]!r} as its next page")
    raise PriceError(f"{url} has more than {MOST_PAGES} pages for {size}")


async def _page(
    session: aiohttp.ClientSession, url: str, parameters: dict[str, str] | None, first_pause_seconds: float
) -> _Page:
    """One page; passing failures are tried again. Raises PriceError."""
    problem = ""
    for number in range(TRIES):
        pause = first_pause_seconds * 2**number
        try:
            async with session.get(url, params=parameters, allow_redirects=False) as answer:
                if answer.status == 200:
                    return _decoded(await _body(answer), url)
                problem = f"answered {answer.status}"
                if answer.status not in PASSING_STATUS:
                    break
                pause = max(pause, _seconds(answer.headers.get("Retry-After", "")))
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = str(error) or f"did not answer within {PAGE_SECONDS:g} s"
        if number + 1 < TRIES:
            await asyncio.sleep(min(pause, LONGEST_PAUSE_SECONDS) * random.uniform(1, 1.5))  # noqa: S311 - spreads load
    raise PriceError(f"{url} {problem}; the price list stays as it is")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MOST_BYTES:
            raise PriceError(f"{answer.url.host} sent a page of more than {MOST_BYTES} bytes")
    return bytes(body)


def _decoded(body: bytes, url: str) -> _Page:
    try:
        return msgspec.json.decode(body, type=_Page)
    except msgspec.DecodeError as error:
        raise PriceError(f"{url} sent no price document: {error}") from error


def _seconds(header: str) -> float:
    """What Retry-After asks for; a date there counts as nothing asked."""
    return float(header) if header.isdigit() else 0.0


def _price(item: _Item, currency: str) -> Price | None:
    """None for what is no Linux node by the hour: Windows, dedicated hosts, promotions, low priority, other units."""
    words = f"{item.product_name} {item.sku_name}".lower()
    hourly = item.unit_of_measure == "1 Hour"
    odd = any(word in words for word in _OTHER_PRODUCTS)
    if odd or not hourly or item.currency_code != currency or item.retail_price <= 0:
        return None
    per_hour, term = item.retail_price, Term.DEDICATED
    if item.type == "Reservation":
        if item.reservation_term not in _TERM_HOURS:
            return None
        term, hours = _TERM_HOURS[item.reservation_term]
        per_hour = item.retail_price / hours  # quoted for the whole term, whatever its unit of measure says
    elif item.type != "Consumption":
        return None
    elif "spot" in words:
        term = Term.SPOT
    return Price(vm_size=item.arm_sku_name, region=item.arm_region_name, term=term, per_hour=per_hour)


def _keep_cheapest(found: dict[tuple[str, str, Term], Price], price: Price) -> None:
    """Where the API lists a size twice, the lower price is the plain Linux one: the other has a licence in it."""
    key = (price.vm_size, price.region, price.term)
    if key not in found or price.per_hour < found[key].per_hour:
        found[key] = price


def _missing(found: dict[tuple[str, str, Term], Price], sizes: Sequence[str], regions: Sequence[str]) -> list[str]:
    return [
        f"{size.removeprefix(PREFIX)} {region} {term.value}"
        for size in sizes
        for region in regions
        for term in Term
        if (size, region, term) not in found
    ]


def _suspicious(found: dict[tuple[str, str, Term], Price], before: PriceList) -> list[str]:
    words = []
    for price in found.values():
        old = before.find(price.vm_size, price.region, price.term)
        if old is not None and not 1 / SUSPICIOUS_FACTOR <= price.per_hour / old.per_hour <= SUSPICIOUS_FACTOR:
            change = f"{old.per_hour:.4g} before, {price.per_hour:.4g} now"
            words.append(f"{price.vm_size} {price.region} {price.term.value}: {change}")
    return words
