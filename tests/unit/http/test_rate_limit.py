"""Token buckets, by a clock of our own."""

from legivellum.base.token_bucket import TokenBuckets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    """A principal may use its burst at once and then as fast as the bucket refills; others are not affected."""
    clock = Clock()
    buckets = TokenBuckets(rate=2, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("b") == 0
    clock.now = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 1]
    clock.now = 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]


def test_says_how_long_to_wait() -> None:
    """Whole seconds, at least one."""
    clock = Clock()
    buckets = TokenBuckets(rate=0.1, burst=1, clock=clock)
    assert buckets.take("a") == 0
    assert buckets.take("a") == 10


def test_no_rate_is_no_limit() -> None:
    """A rate of 0 switches it off."""
    buckets = TokenBuckets(rate=0, burst=1)
    assert {buckets.take("a") for _ in range(100)} == {0}


def test_memory_is_bounded() -> None:
    """However many principals come by, only so many buckets are kept."""
    clock = Clock()
    buckets = TokenBuckets(rate=1, burst=5, principals=10, clock=clock)
    for n in range(1_000):
        clock.now += 0.001
        assert buckets.take(n) == 0
    assert len(buckets._buckets) <= 10
