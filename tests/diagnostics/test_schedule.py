"""The steps recorded: dense early, evenly spread later, bounded for ever."""

import pytest

from stepscope.diagnostics.schedule import FIRST_INTERVAL, Schedule


@pytest.mark.parametrize("capacity", [10, 300])
def test_records_stay_bounded_and_evenly_spread(capacity):
    schedule, kept = Schedule(capacity), []
    for t in range(1, 60_001):
        if schedule.keeps(t):
            kept.append(t)
            if schedule.widen(t):
                kept = [step for step in kept if schedule.keeps(step)]
    even = [t for t in kept if t % schedule.interval == 0]
    assert capacity // 2 <= len(even) <= capacity
    assert even == list(range(schedule.interval, 60_001, schedule.interval))
    assert set(range(1, 9)) <= set(kept)
    assert schedule.interval % FIRST_INTERVAL == 0


@pytest.mark.parametrize("interval", [FIRST_INTERVAL, 4 * FIRST_INTERVAL])
def test_the_next_step_with_something_to_do_is_the_one_that_a_search_finds(interval):
    schedule = Schedule(10, interval)
    for step in [*range(300), *range(1000, 1100), *range(4000, 4700), *range(16_300, 16_500)]:
        searched = next(t for t in range(step + 1, step + 1000) if schedule.keeps(t) or schedule.proves(t + 1))
        assert schedule.next(step) == searched
