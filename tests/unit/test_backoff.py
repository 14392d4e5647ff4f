from pool_daemon.backoff import Backoff


def test_the_waits_double_up_to_the_longest_and_never_fall_below_half_of_it() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=8)
    waits = [backoff.next_seconds() for _ in range(200)]
    ceilings = [min(8, 2**try_) for try_ in range(200)]
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))


def test_two_daemons_do_not_wait_the_same() -> None:
    assert len({Backoff().next_seconds() for _ in range(50)}) == 50


def test_after_a_success_the_first_wait_is_short_again() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=100)
    for _ in range(5):
        backoff.next_seconds()
    backoff.reset()
    assert backoff.next_seconds() <= 1
