"""A dispatcher in a world of plain ports."""

import pytest
from dispatcher_world import World, dispatcher_in

from fusebus.dispatcher.loop import Dispatcher


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def dispatcher(world: World) -> Dispatcher:
    return dispatcher_in(world)
