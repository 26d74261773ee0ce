"""Shared access signatures and the keys behind them: what each token may do, and why others are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.servicebus import sas
from fusebus.servicebus.engine import AuthorizationRule, Engine, QueueSettings, Right, TopicSettings
from fusebus.servicebus.keyring import Keyring

NOW = 1_000_000.0
SENDER = AuthorizationRule("sender", frozenset({Right.SEND}), "first", "second")
OWNER = AuthorizationRule("owner", frozenset({Right.MANAGE}), "own", "")
READER = AuthorizationRule("reader", frozenset({Right.LISTEN}), "read", "")


@pytest.fixture
def keyring() -> Keyring:
    engine = Engine(lambda: NOW)
    engine.namespace.create_queue("eu/orders", QueueSettings(authorization_rules=(SENDER,)))
    engine.namespace.create_topic("images", TopicSettings(authorization_rules=(OWNER,)))
    engine.namespace.create_subscription("images", "detect")
    return Keyring(engine.namespace, "Root", "root-key", (READER,))


def claim(keyring: Keyring, uri: str, name: str, key: str, expires_at: int = 2_000_000) -> sas.Claim:
    return sas.verify(sas.make_token(uri, name, key, expires_at), keyring.find, NOW)


def test_the_root_key_gives_every_right_to_what_its_token_names(keyring: Keyring) -> None:
    found = claim(keyring, "sb://host:5672/eu/orders", "Root", "root-key")
    assert all(found.allows("EU/Orders/$DeadLetterQueue", right, NOW) for right in Right)
    assert not found.allows("images", Right.SEND, NOW)
    assert not found.allows("eu/orders2", Right.SEND, NOW)
    assert claim(keyring, "https://host/", "Root", "root-key").allows("images", Right.MANAGE, NOW)


@pytest.mark.parametrize("key", ["first", "second"])
def test_both_keys_of_an_entitys_rule_give_its_rights_and_no_more(keyring: Keyring, key: str) -> None:
    found = claim(keyring, "sb://host/eu/orders", "sender", key)
    assert found.allows("eu/orders", Right.SEND, NOW)
    assert not found.allows("eu/orders", Right.LISTEN, NOW)
    assert not found.allows("eu/orders", Right.MANAGE, NOW)


def test_manage_includes_send_and_listen_and_a_topics_rule_its_subscriptions(keyring: Keyring) -> None:
    found = claim(keyring, "sb://host/images/Subscriptions/detect", "owner", "own")
    assert all(found.allows("images/Subscriptions/detect", right, NOW) for right in Right)
    assert not found.allows("images", Right.SEND, NOW)


def test_a_namespaces_rule_holds_everywhere(keyring: Keyring) -> None:
    assert claim(keyring, "sb://host", "reader", "read").allows("images/Subscriptions/detect", Right.LISTEN, NOW)


def test_encoded_slashes_of_a_name_are_slashes(keyring: Keyring) -> None:
    assert claim(keyring, "https://host/eu%2Forders", "sender", "first").path == "eu/orders"


@pytest.mark.parametrize("resource", ["host:5672", "host:5672/", "127.0.0.1:5672", "sb://host", "https://host:5672/"])
def test_a_host_alone_is_the_whole_namespace(keyring: Keyring, resource: str) -> None:
    assert claim(keyring, resource, "Root", "root-key").path == ""
    assert claim(keyring, f"{resource.strip('/')}/Images", "Root", "root-key").path == "images"


def test_a_claim_ends_with_its_token(keyring: Keyring) -> None:
    found = claim(keyring, "sb://host/images", "Root", "root-key", 1_000_001)
    assert found.allows("images", Right.SEND, NOW)
    assert not found.allows("images", Right.SEND, NOW + 1)


@pytest.mark.parametrize(
    ("uri", "name", "key", "expires_at", "problem"),
    [
        ("sb://host/images", "sender", "first", 2_000_000, "unknown key name"),  # a rule of another entity
        ("sb://host", "owner", "own", 2_000_000, "unknown key name"),  # an entity's rule for the namespace
        ("sb://host/images", "owner", "other", 2_000_000, "the signature is wrong"),
        ("sb://host/images", "owner", "", 2_000_000, "the signature is wrong"),  # it has no second key
        ("sb://host/images", "Root", "root-key", 1_000_000, "expired"),
    ],
)
def test_other_tokens_are_refused(
    keyring: Keyring, uri: str, name: str, key: str, expires_at: int, problem: str
) -> None:
    with pytest.raises(sas.SasError, match=problem):
        claim(keyring, uri, name, key, expires_at)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "Bearer a.b.c",
        sas.PREFIX,
        sas.PREFIX + "sr=&sig=&se=&skn=",
        sas.PREFIX + "sr=x&sig=%%%&se=2000000&skn=Root",
        sas.PREFIX + "sr=x&sig=YQ==&se=1e9&skn=Root",
        sas.PREFIX + "sr=x&sig=YQ==&se=" + "9" * 400 + "&skn=Root",
        sas.PREFIX + "sr=sb%3A%2F%2F%5B&sig=YQ==&se=2000000&skn=Root",
        sas.PREFIX + "sr=" + "a/" * 5000 + "&sig=%C3%A4&se=2000000&skn=sender",
    ],
)
def test_what_is_no_signature_is_refused_in_words(keyring: Keyring, token: str) -> None:
    with pytest.raises(sas.SasError):
        sas.verify(token, keyring.find, NOW)


def test_a_token_without_a_name_is_the_roots(keyring: Keyring) -> None:
    token = sas.make_token("sb://host", "Root", "root-key", 2_000_000).replace("&skn=Root", "")
    assert sas.verify(token, keyring.find, NOW).path == ""


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_refused_or_a_signature(resource: str, signature: str, expiry: str, name: str) -> None:
    keyring = Keyring(Engine(lambda: NOW).namespace, "Root", "root-key")
    for token in (resource, f"{sas.PREFIX}sr={resource}&sig={signature}&se={expiry}&skn={name}"):
        with pytest.raises(sas.SasError):
            sas.verify(token, keyring.find, NOW)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sb://host:5672/eu/orders/", "eu/orders"),
        ("amqps://[::1]:5672/images/Subscriptions/detect", "images/Subscriptions/detect"),
        ("https://host/orders?api-version=2021-05&x=/y#z", "orders"),
        ("orders/$DeadLetterQueue", "orders/$DeadLetterQueue"),
        ("sb://host", ""),
        ("sb://[", ""),
        ("", ""),
    ],
)
def test_an_address_names_its_entity(uri: str, path: str) -> None:
    assert sas.entity_path(uri) == path
