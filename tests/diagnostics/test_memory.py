"""What a monitor holds in memory, against what it says it keeps of each tensor (docs/cost.md)."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch
from numpy.lib import tracemalloc_domain

from stepscope import Monitor
from stepscope.diagnostics.drift import K
from stepscope.diagnostics.flight import KEPT, LENGTH
from stepscope.diagnostics.imagined import MEMBERS, USUAL
from stepscope.diagnostics.sampling import LEAD
from stepscope.diagnostics.trace import COLUMNS, SUMS

WATCHED, FULLEST = 1024, 4 * K - 1
"""Coordinates of a sample; the step after which the most stretches wait to be merged."""


def held(tensors, what_if):
    """Return the bytes of numpy's arrays that a monitor holds after `FULLEST` steps, and how many records it has."""
    params = [torch.nn.Parameter(torch.randn(2 * WATCHED)) for _ in range(tensors)]
    optimizer = torch.optim.Adam([(f"p{i}", param) for i, param in enumerate(params)], lr=1e-3)
    tracemalloc.start()
    try:
        monitor = Monitor(optimizer, coordinates=WATCHED, what_if=what_if, strict=True)
        for _ in range(FULLEST):
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
        monitor.close()  # writes what else is written as time goes by, into memory here
        gc.collect()
        arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, tracemalloc_domain)])
    finally:
        tracemalloc.stop()
    return sum(trace.size for trace in arrays.traces), len(monitor.trace.steps)


@pytest.mark.parametrize("what_if", [(), USUAL], ids=["without", "with imagined rules"])
def test_a_tensor_takes_what_its_members_need_and_no_more(what_if):
    """Stretches: the newer half, in float32, and the open one; of the sample its index, √v, four sums, and θ."""
    few, many = 4, 24
    held(few, what_if)  # what is made once, with the first monitor of a process
    (less, _), (more, rows) = (held(tensors, what_if) for tensors in (few, many))
    rules = 1 + len(what_if)
    harm, imagined = 6, (2 + 3 * rules if what_if else 0)
    stretches = (4 * (2 * K - 1) + 8) * (harm * LEAD + imagined * MEMBERS) + 8 * 3 * (LEAD + MEMBERS)
    alternatives = 8 * MEMBERS * (4 * rules + 10 + 6) if what_if else 0
    sample = WATCHED * (8 * (1 + 1 + 4) + 4)
    products = 2 * 4 * 8 * (2 * K - 1) ** 2  # as they were made, and in the log
    small = 8 * 8 * len(SUMS)
    records = 8 * len(COLUMNS) * rows
    each = stretches + alternatives + sample + 4 * LENGTH * len(KEPT) + products + small + records
    assert 0.95 * each < (more - less) / (many - few) <= each
