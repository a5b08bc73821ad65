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
