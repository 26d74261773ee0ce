"""An engine with one queue, and its clock."""

from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from engines import Clock

from fusebus.servicebus.engine import Engine, QueueSettings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_engine(clock: Clock) -> Callable[..., Engine]:
    def make(**settings: Any) -> Engine:
        numbers = count(1)
        engine = Engine(clock, new_token=lambda: UUID(int=next(numbers)))
        engine.namespace.create_queue("q", QueueSettings(**{"lock_seconds": 10.0, **settings}))
        return engine

    return make


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()
