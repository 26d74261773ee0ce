"""What is said of a link before anything is sent with it."""

from datetime import UTC, datetime

import pytest

from fusebus.upload import LinkUnfit
from fusebus.upload.link import read_link

NOW = datetime(2026, 5, 6, tzinfo=UTC)
GOOD = "https://a.blob.core.windows.net/in-acme?sp=c&sr=c&se=2026-05-07T00:00:00Z&sig=secret%3D"


def test_a_create_only_link_is_taken_and_its_secret_is_not_shown() -> None:
    link = read_link(f" '{GOOD}'\n", NOW)
    assert (link.container, link.may_create_for_sure) == ("https://a.blob.core.windows.net/in-acme", True)
    assert "secret" not in repr(link)
    assert link.target("a b/é?#%.jpg").startswith("/in-acme/a%20b/%C3%A9%3F%23%25.jpg?sp=c&")


def test_a_link_on_a_stored_policy_says_nothing_of_its_rights() -> None:
    assert not read_link("https://a.example/in-acme?si=g1&sr=c&sig=secret", NOW).may_create_for_sure
    assert not read_link(GOOD + "&skoid=1", NOW).may_create_for_sure, "nor does one of an identity, which may have less"
    assert read_link("http://127.0.0.1:10000/account/in-acme?si=g1&sig=x", NOW).port == 10000


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("photos", "no link"),
        ("https://[bad/x?sig=1", "no link"),
        ("ftp://a.example/in-acme?sig=1", "no link"),
        (GOOD.replace("&sig", " &sig"), "that no link has"),
        (GOOD.replace("&sig", "\n&sig"), "that no link has"),
        (GOOD.replace("acme", "\u00e4cme"), "that no link has"),
        (GOOD + "\u2026", "that no link has"),
        (GOOD + "\x7f", "that no link has"),
        (GOOD.replace("https", "http"), "use https"),
        (GOOD.partition("&")[0], "cut off"),
        ("https://a.example/?sp=c&sig=1", "names no container"),
        (GOOD.replace("sp=c", "sp=racwdl"), "allows more than to create files (sp=racwdl)"),
        (GOOD.replace("sp=c", "sp=r"), "can't create files"),
        (GOOD + "&ss=b&srt=sco", "whole account"),
        (GOOD.replace("sr=c", "sr=b"), "not for a whole container"),
        (GOOD.replace("05-07", "05-05"), "expired on 2026-05-05 00:00 UTC"),
        (GOOD + "&st=2026-05-06T01:00:00Z", "holds only from"),
    ],
)
def test_an_unfit_link_is_told_why_and_never_with_its_secret(link: str, words: str) -> None:
    with pytest.raises(LinkUnfit) as error:
        read_link(link, NOW)
    assert words in str(error.value) and "secret" not in str(error.value)
