import pytest

from fusebus.contracts.outcomes import LONGEST_RETRY_SECONDS, retry


@pytest.mark.parametrize(("attempt", "delay"), [(1, 5), (2, 10), (4, 40), (9, 300), (10**9, LONGEST_RETRY_SECONDS)])
def test_retries_come_later_each_time_up_to_a_limit(attempt, delay):
    assert retry("storage_unavailable", OSError("503"), attempt=attempt, first_seconds=5).delay == delay


def test_a_retry_says_what_did_not_answer():
    again = retry("storage_unavailable", OSError("503"), attempt=1, first_seconds=5)
    assert (again.reason, again.description) == ("storage_unavailable", "503")
