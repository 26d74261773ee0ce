"""The processes that share a training: what they add up, and that none waits for one that has ended. Needs torch."""

from operator import methodcaller

import pytest
import torch

from fusebus.vision.export.errors import HelperEnded
from fusebus.vision.export.sharing import Share, shared


def test_every_process_gets_the_sum_of_what_all_gave() -> None:
    with shared(3, methodcaller("add_up", torch.tensor([1.0, 2.0]))) as share:
        values = torch.tensor([10.0, 20.0])
        share.add_up(values)
    assert values.tolist() == [12.0, 24.0]


def test_a_process_that_ends_before_its_time_is_told_with_its_exit_code() -> None:
    with pytest.raises(HelperEnded, match="ended with 1; what it said"), shared(2, methodcaller("no_such")) as share:
        share.add_up(torch.zeros(1))


def test_the_others_end_with_the_first_whatever_they_wait_for() -> None:
    with pytest.raises(RuntimeError, match="of the first"), shared(2, methodcaller("add_up", torch.zeros(1))):
        raise RuntimeError("an error of the first")


def test_one_process_alone_adds_nothing() -> None:
    values = torch.ones(2)
    Share().add_up(values)
    assert values.tolist() == [1.0, 1.0]
