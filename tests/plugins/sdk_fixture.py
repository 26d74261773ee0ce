"""The Python SDK of Service Bus in a hurry: its senders and receivers close at once, not at their next full second."""

import asyncio
import sys
import time
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest

LOOK_SECONDS = 0.02  # the SDK: 1


@pytest.fixture(scope="session", autouse=True)
def prompt_closing() -> None:
    """A link's keep-alive sleeps a second between two looks, and closing it waits for the end of that sleep.

    These tests open hundreds of links, most of them for less than a second: waiting for their ends took more than the
    tests. The SDK's own loops stay as they are but for their sleep. What runs in a process of its own, each service
    and each worker, has the SDK unchanged.
    """
    if "azure.servicebus._pyamqp" not in sys.modules:
        return  # no test of this session uses it
    from azure.servicebus._pyamqp.aio._client_async import AMQPClientAsync
    from azure.servicebus._pyamqp.client import AMQPClient

    sleep, sleep_async = time.sleep, asyncio.sleep
    brief_time = SimpleNamespace(time=time.time, sleep=lambda _: sleep(LOOK_SECONDS))
    brief_asyncio = SimpleNamespace(shield=asyncio.shield, sleep=lambda _: sleep_async(LOOK_SECONDS))
    AMQPClient._keep_alive = _with_names(AMQPClient._keep_alive, time=brief_time)
    AMQPClientAsync._keep_alive_async = _with_names(AMQPClientAsync._keep_alive_async, asyncio=brief_asyncio)


def _with_names(function: Any, **names: object) -> FunctionType:
    """The same function, for which these global names mean something else."""
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
