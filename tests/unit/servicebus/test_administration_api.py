"""The administration API without a network: documents as both SDKs read them, and hostile ones refused in time."""

import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.servicebus.admin.api import AdministrationApi, Answer, Request
from fusebus.servicebus.admin.reader import MAX_BODY_BYTES, MAX_DEPTH, MAX_ELEMENTS, read_xml
from fusebus.servicebus.engine import Engine, InvalidArgument, Right
from fusebus.servicebus.tier import Tier

ATOM = "http://www.w3.org/2005/Atom"
CONNECT = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"


def api(engine: Engine | None = None) -> AdministrationApi:
    return AdministrationApi(engine or Engine(lambda: 0.0), lambda authorization, path, right: True)


def ask(
    served: AdministrationApi, method: str, path: str, body: str | bytes = b"", headers: dict[str, str] | None = None
) -> Answer:
    raw_path, _, query = path.partition("?")
    parsed = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    request = Request(method, raw_path, "https://host:5672", parsed, headers or {})
    data = body.encode() if isinstance(body, str) else body
    return served.check(request) or served.answer(request, data)


def entry(content: str) -> str:
    return f'<entry xmlns="{ATOM}"><content type="application/xml">{content}</content></entry>'


def described(kind: str, inside: str = "") -> str:
    return entry(f'<{kind}Description xmlns="{CONNECT}" xmlns:i="{INSTANCE}">{inside}</{kind}Description>')


@pytest.fixture
def served() -> AdministrationApi:
    made = api()
    for path, kind in (
        ("/orders", "Queue"),
        ("/eu%2Ffast", "Queue"),
        ("/images", "Topic"),
        ("/images/subscriptions/detect", "Subscription"),
        ("/images/subscriptions/detect/rules/mine", "Rule"),
    ):
        assert ask(made, "PUT", path, described(kind)).status == 201
    return made


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/orders", "https://host:5672/orders"),
        ("/EU%2ffast", "https://host:5672/eu/fast"),
        ("/eu/fast", "https://host:5672/eu/fast"),
        ("/images/Subscriptions/Detect", "https://host:5672/images/Subscriptions/detect"),
        ("/images/subscriptions/detect/rules/MINE", "https://host:5672/images/Subscriptions/detect/Rules/mine"),
    ],
)
def test_addresses_are_spelled_as_the_javascript_sdk_takes_them_apart(
    served: AdministrationApi, path: str, address: str
) -> None:
    answer = ask(served, "GET", path)
    assert ElementTree.fromstring(answer.text).findtext(f"{{{ATOM}}}id") == address
    assert answer.etag


def test_no_element_has_a_prefix_but_the_counts(served: AdministrationApi) -> None:
    for path in ("/orders", "/images", "/images/subscriptions", "/$Resources/queues", "/$namespaceinfo"):
        text = ask(served, "GET", path).text
        names = [part.split(">")[0].split(" ")[0].strip("/") for part in text.split("<")]
        assert {name.partition(":")[0] for name in names if ":" in name} <= {"d2p1"}, path


@pytest.mark.parametrize(
    ("kind", "path"), [("Queue", "/q"), ("Topic", "/t"), ("Subscription", "/images/subscriptions/s")]
)
def test_prefixes_and_comments_in_requests_mean_nothing(served: AdministrationApi, kind: str, path: str) -> None:
    body = (
        f'<a:entry xmlns:a="{ATOM}" xmlns:c="{CONNECT}"><!-- note --><a:content>\n<c:{kind}Description>'
        f"<c:UserMetadata><![CDATA[<&>]]></c:UserMetadata></c:{kind}Description></a:content></a:entry>"
    )
    answer = ask(served, "PUT", path, '<?xml version="1.0" encoding="utf-8"?>' + body)
    assert answer.status == 201
    assert "<UserMetadata>&lt;&amp;&gt;</UserMetadata>" in answer.text


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("dateTime", "9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59-10:00"),
        ("dateTime", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("dateTime", "2026-01-02T03:04:05.5", "2026-01-02T03:04:05.500000"),
        ("duration", "PT0.000001S", "PT0.000001S"),
        ("double", "nan", "nan"),
        ("long", "-9223372036854775808", "-9223372036854775808"),
        ("unsignedLong", "18446744073709551615", "18446744073709551615"),
        ("guid", "00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000a"),
        ("string", " <a> ", " <a> "),
        ("string", "", ""),
    ],
)
def test_values_at_their_limits_go_there_and_back(served: AdministrationApi, kind: str, text: str, told: str) -> None:
    value = f'<Value xmlns:x="http://www.w3.org/2001/XMLSchema" i:type="x:{kind}">{escape(text)}</Value>'
    pairs = f"<KeyValueOfstringanyType><Key>k</Key>{value}</KeyValueOfstringanyType>"
    rule = described("Rule", f'<Filter i:type="CorrelationFilter"><Properties>{pairs}</Properties></Filter>')
    answer = ask(served, "PUT", "/images/subscriptions/detect/rules/limit", rule)
    assert answer.status == 201, answer.text
    assert (ElementTree.fromstring(answer.text).findtext(f".//{{{CONNECT}}}Value") or "") == told


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "9" * 20),
        ("int", "9" * 5000),
        ("int", "1.5"),
        ("dateTime", "soon"),
        ("duration", "P1Y"),
        ("duration", "P" + "9" * 400 + "D"),
        ("guid", "x"),
    ],
)
def test_values_beyond_their_limits_are_refused(served: AdministrationApi, kind: str, text: str) -> None:
    value = f'<Value xmlns:x="http://www.w3.org/2001/XMLSchema" i:type="x:{kind}">{text}</Value>'
    pairs = f"<KeyValueOfstringanyType><Key>k</Key>{value}</KeyValueOfstringanyType>"
    rule = described(
        "Rule",
        f'<Filter i:type="SqlFilter"><SqlExpression>a=1</SqlExpression><Parameters>{pairs}</Parameters></Filter>',
    )
    answer = ask(served, "PUT", "/images/subscriptions/detect/rules/limit", rule)
    assert (answer.status, "Parameters: 'k' is not a" in answer.text) == (400, True), answer.text


def test_pages_end_where_the_entities_do(served: AdministrationApi) -> None:
    for index in range(5):
        ask(served, "PUT", f"/q{index}", described("Queue"))
    seen: list[Any] = []
    path: str | None = "/$Resources/queues?$skip=0&$top=3"
    while path:
        feed = ElementTree.fromstring(ask(served, "GET", path).text)
        seen += [found.findtext(f"{{{ATOM}}}title") for found in feed.findall(f"{{{ATOM}}}entry")]
        links = feed.findall(f"{{{ATOM}}}link")
        path = links[1].get("href", "").removeprefix("https://host:5672") if len(links) == 2 else None
    assert seen == ["eu/fast", "orders", "q0", "q1", "q2", "q3", "q4"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("PUT", "/new", described("Queue", "<LockDuration>soon</LockDuration>"), 400, "LockDuration"),
        ("PUT", "/new", described("Queue", "<MaxDeliveryCount>1e3</MaxDeliveryCount>"), 400, "MaxDeliveryCount"),
        ("PUT", "/new", described("Queue", "<RequiresSession>yes</RequiresSession>"), 400, "RequiresSession"),
        ("PUT", "/new", described("Queue", "<Status>Off</Status>"), 400, "Status"),
        ("PUT", "/new", described("Queue", "<ForwardTo>sb://[/x</ForwardTo>"), 400, "ForwardTo"),
        ("PUT", "/new", described("Other"), 400, "neither a queue nor a topic"),
        ("PUT", "/orders", described("Topic"), 409, "exists"),
        ("PUT", "/images/subscriptions/x", described("Queue"), 400, "not a SubscriptionDescription"),
        ("PUT", "/nothing/subscriptions/x", described("Subscription"), 404, "nothing"),
        ("PUT", "/images/subscriptions/detect/rules/x", described("Rule", "<Filter/>"), 400, "Filter"),
        (
            "PUT",
            "/images/subscriptions/detect/rules/x",
            described("Rule", '<Filter i:type="SqlFilter"><SqlExpression>a =</SqlExpression></Filter>'),
            400,
            "at position 4",
        ),
        (
            "PUT",
            "/images/subscriptions/detect/rules/x",
            described("Rule", '<Action i:type="Other"/>'),
            400,
            "Action: 'Other'",
        ),
        ("PUT", "/orders/$DeadLetterQueue", described("Queue"), 400, "is not a name"),
        ("DELETE", "/orders/$DeadLetterQueue", "", 404, "not a queue or topic"),
        ("DELETE", "/$namespaceinfo", "", 405, "only GET"),
        ("PATCH", "/orders", "", 405, "only GET, PUT, DELETE"),
        ("GET", "/$Resources/queues?$top=-1", "", 400, "$top"),
        ("GET", "/$Resources/queues?$skip=9999999999", "", 400, "$skip"),
    ],
)
def test_a_refusal_has_its_status_and_names_what_is_wrong(
    served: AdministrationApi, method: str, path: str, body: str, status: int, detail: str
) -> None:
    answer = ask(served, method, path, body)
    found = ElementTree.fromstring(answer.text)
    assert (answer.status, found.findtext("Code")) == (status, str(status))
    assert detail in (found.findtext("Detail") or "")


def test_an_etag_guards_against_changing_what_somebody_else_changed() -> None:
    now = [0.0]
    served = api(Engine(lambda: now[0]))
    first = ask(served, "PUT", "/orders", described("Queue")).etag
    now[0] = 1.0
    second = ask(served, "PUT", "/orders", described("Queue"), {"If-Match": str(first)})
    assert second.status == 200
    assert ask(served, "PUT", "/orders", described("Queue"), {"If-Match": str(first)}).status == 412
    assert ask(served, "PUT", "/orders", described("Queue"), {"If-Match": "*"}).status == 200
    assert ask(served, "PUT", "/none", described("Queue"), {"If-Match": "*"}).status == 404


@pytest.mark.parametrize(
    "path", ["/orders", "/images", "/images/subscriptions/detect", "/images/subscriptions/detect/rules/mine"]
)
def test_an_etag_guards_against_deleting_what_somebody_else_changed(served: AdministrationApi, path: str) -> None:
    present = str(ask(served, "GET", path).etag)
    assert ask(served, "DELETE", path, headers={"If-Match": '"1"'}).status == 412
    assert ask(served, "GET", path).etag == present
    assert ask(served, "DELETE", path, headers={"If-Match": present}).status == 200
    for match in (present, "*"):
        assert ask(served, "DELETE", path, headers={"If-Match": match}).status == 404


@pytest.mark.parametrize(
    ("kind", "inside", "detail"),
    [
        ("Topic", "", "no topics"),
        ("Queue", "<RequiresSession>true</RequiresSession>", "RequiresSession"),
        ("Queue", "<RequiresDuplicateDetection>true</RequiresDuplicateDetection>", "RequiresDuplicateDetection"),
        ("Queue", "<ForwardTo>orders</ForwardTo>", "ForwardTo"),
    ],
)
def test_the_basic_tier_has_less(kind: str, inside: str, detail: str) -> None:
    served = AdministrationApi(Engine(lambda: 0.0), lambda authorization, path, right: True, Tier.BASIC)
    assert ask(served, "PUT", "/orders", described("Queue")).status == 201
    answer = ask(served, "PUT", "/new", described(kind, inside))
    assert (answer.status, detail in answer.text) == (400, True)


def test_an_idle_entity_deletes_itself() -> None:
    now = [0.0]
    served = api(Engine(lambda: now[0]))
    assert ask(served, "PUT", "/orders", described("Queue", "<AutoDeleteOnIdle>PT5M</AutoDeleteOnIdle>")).status == 201
    now[0] = 299.0
    assert "<AutoDeleteOnIdle>PT5M</AutoDeleteOnIdle>" in ask(served, "GET", "/orders").text
    now[0] = 299.0 + 301.0
    assert ask(served, "GET", "/orders").status == 404


def test_keys_are_dated() -> None:
    now = [0.0]
    served = api(Engine(lambda: now[0]))
    rights = "<Rights><AccessRights>{right}</AccessRights></Rights>"
    rule = f"<AuthorizationRule>{rights}<KeyName>k</KeyName></AuthorizationRule>"

    def put(right: str, headers: dict[str, str]) -> ElementTree.Element:
        rules = f"<AuthorizationRules>{rule.format(right=right)}</AuthorizationRules>"
        return ElementTree.fromstring(ask(served, "PUT", "/orders", described("Queue", rules), headers).text)

    def told(found: ElementTree.Element, name: str) -> str | None:
        return found.findtext(f".//{{{CONNECT}}}AuthorizationRule/{{{CONNECT}}}{name}")

    first = put("Send", {})
    now[0] = 86_400.0
    same, other = put("Send", {"If-Match": "*"}), put("Listen", {"If-Match": "*"})
    assert told(first, "PrimaryKey") == told(same, "PrimaryKey") == told(other, "PrimaryKey")
    assert told(same, "ModifiedTime") == told(other, "CreatedTime") == "1970-01-01T00:00:00.000000Z"
    assert told(other, "ModifiedTime") == "1970-01-02T00:00:00.000000Z"


def test_who_may_not_manage_is_refused_before_anything_is_read() -> None:
    asked: list[tuple[str | None, str, Right]] = []

    def authorize(authorization: str | None, path: str, right: Right) -> bool:
        asked.append((authorization, path, right))
        return False

    served = AdministrationApi(Engine(lambda: 0.0), authorize)
    request = Request("PUT", "/images/subscriptions/s/rules/r", "http://h", {}, {"Authorization": "token"})
    refusal = served.check(request)
    assert refusal is not None
    assert refusal.status == 401
    assert asked == [("token", path, Right.MANAGE) for path in ("images", "images/subscriptions/s/rules/r")]


# Hostile documents

BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))
    + f']><entry xmlns="{ATOM}"><content>&m;</content></entry>'
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BILLION_LAUGHS,
        lambda: BILLION_LAUGHS.encode("utf-16"),
        lambda: b'<?xml version="1.0" encoding="utf-7"?><a/>',
        lambda: '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        lambda: '<!DOCTYPE a [<!ENTITY b SYSTEM "http://127.0.0.1/">]><a>&b;</a>',
        lambda: "<a>" * (MAX_DEPTH + 1) + "</a>" * (MAX_DEPTH + 1),
        lambda: "<a>" * 80_000,
        lambda: f"<a>{'<b/>' * MAX_ELEMENTS}</a>",
        lambda: "x" * (MAX_BODY_BYTES + 1),
        lambda: "<a " + " ".join(f'x{n}="1"' for n in range(20_000)) + ">",
        lambda: "<a xmlns:p='" + "u" * 200_000 + "'><p:b",
        lambda: "&a;",
        lambda: "<a>&undefined;</a>",
        lambda: b"\x00<a/>",
        lambda: "",
    ],
)
def test_a_hostile_document_is_refused_at_once(make: Callable[[], str | bytes]) -> None:
    started = time.process_time()
    answer = ask(api(), "PUT", "/new", make())
    assert answer.status == 400
    assert len(answer.text) < 2000
    assert time.process_time() - started < 6.0  # seconds; most take a millisecond


ELEMENTS = [
    "LockDuration", "MaxDeliveryCount", "DefaultMessageTimeToLive", "RequiresSession", "Status", "ForwardTo",
    "UserMetadata", "AutoDeleteOnIdle", "MaxSizeInMegabytes", "RequiresDuplicateDetection", "AuthorizationRules",
    "DuplicateDetectionHistoryTimeWindow", "AuthorizationRule", "KeyName", "Rights", "AccessRights", "Filter", "Action",
    "SqlExpression", "Parameters", "Properties", "KeyValueOfstringanyType", "Key", "Value", "DefaultRuleDescription",
    "CorrelationId", "MaxMessageSizeInKilobytes", "Name",
]  # fmt: skip
TYPES = ["SqlFilter", "CorrelationFilter", "TrueFilter", "SqlRuleAction", "p:int", "p:dateTime", "p:duration", "p:guid"]
TEXTS = st.sampled_from(["", "PT1M", "P1D", "true", "3", "-1", "orders", "a = 1", "SET a = 1", "Send", "9" * 30]) | (
    st.text(max_size=12)
)


def trees(depth: int = 3) -> st.SearchStrategy[ElementTree.Element]:
    children = st.just([]) if depth == 0 else st.lists(trees(depth - 1), max_size=4)

    def made(name: str, text: str, kind: str | None, inside: list[ElementTree.Element]) -> ElementTree.Element:
        found = ElementTree.Element(f"{{{CONNECT}}}{name}", {} if kind is None else {f"{{{INSTANCE}}}type": kind})
        found.text = text
        found.extend(inside)
        return found

    return st.builds(made, st.sampled_from(ELEMENTS), TEXTS, st.none() | st.sampled_from(TYPES), children)


PATHS = [
    ("Queue", "/new"), ("Topic", "/images"), ("Queue", "/orders"), ("Subscription", "/images/subscriptions/s"),
    ("Rule", "/images/subscriptions/detect/rules/r"),
]  # fmt: skip


def documented(kind: str, inside: list[ElementTree.Element]) -> bytes:
    root = ElementTree.Element(f"{{{ATOM}}}entry")
    content = ElementTree.SubElement(root, f"{{{ATOM}}}content")
    ElementTree.SubElement(content, f"{{{CONNECT}}}{kind}Description").extend(inside)
    return ElementTree.tostring(root)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATHS), st.lists(trees(), max_size=5), st.none() | st.sampled_from(["*", '"0"']))
def test_any_description_is_stored_or_refused(
    target: tuple[str, str], inside: list[ElementTree.Element], match: str | None
) -> None:
    served = api()
    for kind, path in (("Queue", "/orders"), ("Topic", "/images"), ("Subscription", "/images/subscriptions/detect")):
        ask(served, "PUT", path, described(kind))
    kind, path = target
    answer = ask(served, "PUT", path, documented(kind, inside), {} if match is None else {"If-Match": match})
    assert answer.status in (200, 201, 400, 404, 409, 412)
    ElementTree.fromstring(answer.text)
    again = ask(served, "GET", path)
    assert again.status in (200, 404)
    if answer.status in (200, 201):
        ElementTree.fromstring(again.text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="<>/&;!?[]-= \"'abCDATxmlns:", max_size=120).map(str.encode))
def test_any_bytes_are_xml_or_a_refusal(body: bytes) -> None:
    try:
        read_xml(body)
    except InvalidArgument as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["GET", "PUT", "DELETE"]))
def test_any_path_has_an_answer(path: str, method: str) -> None:
    answer = ask(api(), method, "/" + path.replace("?", ""), described("Queue"))
    assert answer.status in (200, 201, 400, 404, 405)
    if answer.text:
        ElementTree.fromstring(answer.text)
