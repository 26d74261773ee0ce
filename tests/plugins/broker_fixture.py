"""Brokers for tests: `broker` has the topology of the test's module, `start_broker` any."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

StartBroker = Callable[..., BrokerThread]


@pytest.fixture
def start_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartBroker]:
    """`start_broker(topology, insecure=..., key=..., ...)`: a broker on a free port, in a thread of its own.

    It stops with the test. All brokers of a run share one certificate authority, which takes a while to make.
    """
    authority = tmp_path_factory.getbasetemp() / "broker-authority"
    with ExitStack() as stack:

        def start(topology: dict[str, Any] | None = None, **options: Any) -> BrokerThread:
            options.setdefault("ca_directory", authority)
            return stack.enter_context(BrokerThread(BrokerOptions(topology=topology, **options)))

        yield start


@pytest.fixture
def broker(request: pytest.FixtureRequest, start_broker: StartBroker) -> BrokerThread:
    """A broker with the entities of the module's TOPOLOGY (see fusebus.servicebus.config); none without it."""
    return start_broker(getattr(request.module, "TOPOLOGY", None))
