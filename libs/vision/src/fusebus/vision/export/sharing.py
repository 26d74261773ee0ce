"""Owns the processes that share a training on this machine: how they begin, add up what each computed, and end."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
from torch import Tensor, multiprocessing

from fusebus.vision.export.errors import HelperEnded

_JOIN_SECONDS = 30.0  # for the other processes to end by themselves once the first has let go of them


@dataclass(frozen=True)
class Share:
    """One process's part: its number, and its ends of the pipes. The first has one to each other, each other one to it.

    Pipes, since the end of a process closes them: nobody waits for one that will never answer.
    """

    number: int = 0
    ends: tuple[Connection, ...] = ()

    def add_up(self, values: Tensor) -> None:
        """Replace `values` (n,) float32 by the sum of what all processes give, the same bits in each of them.

        Raises EOFError where another process has ended.
        """
        mine = values.numpy()
        try:
            if self.number:
                self.ends[0].send_bytes(mine)
                self.ends[0].recv_bytes_into(mine)
                return
            theirs = np.empty_like(mine)
            for end in self.ends:
                end.recv_bytes_into(theirs)
                mine += theirs
            for end in self.ends:
                end.send_bytes(mine)
        except OSError as error:  # a reset or a broken pipe, by the moment at which the other ended
            raise EOFError from error


@contextmanager
def shared(processes: int, work: Callable[[Share], object]) -> Iterator[Share]:
    """The first process's share, while `processes` - 1 others run `work` with theirs.

    `work` travels to them by pickle. Raises HelperEnded where one of them ended before the first.
    """
    spawn = multiprocessing.get_context("spawn")  # torch's threads don't survive a fork
    pipes = [spawn.Pipe() for _ in range(1, processes)]
    others = [
        spawn.Process(target=_other, args=(work, Share(number, (theirs,))))
        for number, (_, theirs) in enumerate(pipes, start=1)
    ]
    for other, (_, theirs) in zip(others, pipes, strict=True):
        other.start()
        theirs.close()
    try:
        yield Share(0, tuple(ours for ours, _ in pipes))
    except EOFError:
        raise HelperEnded(_what_ended(others)) from None
    finally:
        for ours, _ in pipes:
            ours.close()
        for other in others:
            other.join(_JOIN_SECONDS)
            other.kill()


def _other(work: Callable[[Share], object], share: Share) -> None:
    os.setsid()  # a signal to the group, as Ctrl-C gives, is the first process's to answer: it decides for all
    with suppress(EOFError):  # the first has ended, and says why
        work(share)


def _what_ended(others: list[BaseProcess]) -> str:
    """Which of them closed its pipe, and how it ended."""
    for other in others:
        other.join(_JOIN_SECONDS / len(others))
    codes = ", ".join(str(other.exitcode) for other in others if other.exitcode is not None)
    return f"a process that shares the training ended with {codes}; what it said is on standard error"
