"""Pauses between attempts."""

import pytest

from legivellum.base.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    """Without jitter: 1, 2, 4, 5, 5, and the first again after a success."""
    backoff = Backoff(1.0, 5.0, jitter=lambda: 0.0)
    assert [backoff.pause() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert (backoff.failures, backoff.pause()) == (0, 1.0)


@pytest.mark.parametrize(("spread", "shortest"), [(0.5, 4.0), (0.1, 7.2), (0.0, 8.0)])
def test_jitter_only_shortens_a_pause(spread: float, shortest: float) -> None:
    """Between its whole length and the part that the spread leaves of it."""
    for drawn, expected in ((0.0, 8.0), (1.0, shortest)):
        assert Backoff(1.0, 100.0, spread=spread, jitter=lambda drawn=drawn: drawn).after(4) == pytest.approx(expected)


def test_any_number_of_failures_is_the_longest_pause() -> None:
    """A server that is away for a year does not overflow a float."""
    assert Backoff(0.5, 30.0, jitter=lambda: 0.0).after(100_000) == 30.0
