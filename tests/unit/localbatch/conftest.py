"""A state machine of the local Batch with a clock that the test moves: no server, no process."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fusebus.localbatch.entities import AccountLimits, Instruction, StartProcess
from fusebus.localbatch.state import BatchState

LIMITS = AccountLimits(boot_seconds=10, leave_seconds=1, terminate_grace_seconds=5, preempted_seconds=20, capacity=4)
VM = {"vmSize": "Standard_NC4as_T4_v3"}


class World:
    """A state machine with a clock that the test moves."""

    def __init__(self, limits: AccountLimits = LIMITS) -> None:
        self.now = 1000.0
        self.state = BatchState(limits, lambda: self.now)
        self.done: list[Instruction] = []

    def step(self, pass_seconds: float = 0) -> list[Instruction]:
        """Stop at every deadline on the way, as a server's timer would."""
        end = self.now + pass_seconds
        fresh = self.state.advance()
        while (due := self.state.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            fresh += self.state.advance()
        self.now = end
        fresh += self.state.advance()
        self.done += fresh
        return fresh

    def scale(self, spot: int = 0, dedicated: int = 0, **more: Any) -> None:
        fixed = {"targetLowPriorityNodes": spot, "targetDedicatedNodes": dedicated, **more}
        self.state.update_pool("gpu", {"scaleSettings": {"fixedScale": fixed}})

    def task(self, task_id: str, **body: Any) -> None:
        self.state.create_task("work", {"id": task_id, "commandLine": "run", **body})

    def states(self) -> list[str]:
        return [node.state.value for node in self.state.pool("gpu").nodes.values()]

    def started(self) -> list[str]:
        return [done.task_id for done in self.done if isinstance(done, StartProcess)]

    def end(self, task_id: str, exit_code: int = 0) -> None:
        run = next(run for run in self.state.runs.values() if run.task.id == task_id)
        self.state.process_ended(run.id, exit_code)
        self.step()


@pytest.fixture
def new_world() -> Callable[..., World]:
    """Makes a world with the pool `gpu` and the job `work`; limits may be given by name."""

    def make(**limits: Any) -> World:
        world = World(dataclasses.replace(LIMITS, **limits))
        world.state.create_pool("gpu", VM)
        world.state.create_job({"id": "work", "poolInfo": {"poolId": "gpu"}})
        return world

    return make


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world()
