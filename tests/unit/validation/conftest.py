"""One fork server for all of these tests, as in production one serves many files."""

from collections.abc import Iterator

import pytest

from fusebus.validation import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    found = ForkServer()
    found.start()
    yield found
    found.close()
