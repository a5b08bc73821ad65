"""The sums over all coordinates have the same bits whoever makes them, and no thread is waited for in vain."""

import os
import threading

import numpy as np
import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics import accumulators, one_step
from stepscope.diagnostics.fading import add_long, add_short
from stepscope.diagnostics.side_by_side import side_by_side
from stepscope.diagnostics.trace import SUMS

SIZES = 5000, one_step.CHUNK, 3 * one_step.CHUNK + 7, 3000, 2 * one_step.CHUNK - 1
STEPS = 40
RMS2, ACTIVE, STEPS_TAKEN = (SUMS.index(name) for name in ("rms2", "active", "steps"))


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def train(threads_at, dtype=torch.float32):
    """Return the sums of every step, `(steps, tensors, 20)`, with so many threads at step t; one tensor often rests."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.zeros(n, dtype=dtype)) for n in SIZES]
    optimizer = torch.optim.AdamW(params, lr=0.01)
    monitor = Monitor(optimizer, coordinates="all", strict=True)
    found = []
    for t in range(STEPS):
        for k, p in enumerate(params):
            p.grad = torch.randn(len(p), generator=generator, dtype=dtype) if k != 2 or t % 5 else None
        torch.set_num_threads(threads_at(t))
        optimizer.step()
        found.append(monitor._recorder.accumulators.last.copy())
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sums_have_the_same_bits_with_any_number_of_threads(dtype, monkeypatch):
    calls = []
    monkeypatch.setattr(accumulators, "side_by_side", lambda *args: (calls.append(args[1]), side_by_side(*args)))
    alone = train(lambda t: 3, dtype)
    assert not calls  # too little for threads
    monkeypatch.setattr(accumulators, "PER_THREAD", 1)
    for threads_at in (lambda t: 1, lambda t: 2, lambda t: 3, lambda t: 1 + t % 4):
        np.testing.assert_array_equal(train(threads_at, dtype), alone)
    assert set(calls) == {2, 3, 4}


@pytest.mark.parametrize(("dtype", "loop"), [(torch.float32, add_short), (torch.float64, add_long)])
def test_the_chunks_add_up_to_one_loop_over_the_tensor(dtype, loop, monkeypatch):
    monkeypatch.setattr(accumulators, "PER_THREAD", 1)
    torch.set_num_threads(3)
    p = torch.nn.Parameter(torch.zeros(3 * one_step.CHUNK + 7, dtype=dtype))
    optimizer = torch.optim.AdamW([p], lr=0.01)
    handle = Monitor(optimizer, coordinates="all", strict=True)._recorder.watchers[0].accumulator
    for t in range(STEPS):
        p.grad = torch.randn(len(p), dtype=dtype) * (torch.rand(len(p)) > 0.1)
        then, whole = handle.then.copy(), np.zeros(len(SUMS))
        optimizer.step()
        loop(optimizer.state[p]["exp_avg_sq"].numpy(), p.grad.numpy(), handle.then, then, whole)
        whole[RMS2] /= whole[ACTIVE]
        whole[STEPS_TAKEN] = 1.0
        if t >= 16:  # before, v is copied
            np.testing.assert_allclose(handle.last, whole, rtol=1e-12)


def test_every_chunk_is_drawn_once():
    """Ten million draws by two threads at once; without the atomic addition half of such runs draw some twice."""
    counter, drawn = np.zeros(1, np.int64), np.zeros(10**7, np.uint8)
    side_by_side(lambda: draw_all(counter.ctypes.data, drawn), 2)
    assert (drawn == 1).all()


@one_step.unlocked
def draw_all(address, drawn):
    chunk = one_step.draw(address)
    while chunk < len(drawn):
        drawn[chunk] += 1
        chunk = one_step.draw(address)


def test_an_error_reaches_the_caller_once_all_have_ended():
    here, ended = threading.current_thread(), []

    def fail_elsewhere():
        try:
            if threading.current_thread() is not here:
                raise ZeroDivisionError
        finally:
            ended.append(threading.current_thread())

    with pytest.raises(ZeroDivisionError):
        side_by_side(fail_elsewhere, 3)
    assert here in ended
    assert not any(thread.is_alive() for thread in ended if thread is not here)


def test_an_interrupt_here_waits_for_the_others():
    here, begun, ended = threading.current_thread(), threading.Event(), []

    def work():
        if threading.current_thread() is here:
            begun.wait()
            raise KeyboardInterrupt
        begun.set()
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, 2)
    assert ended


def test_where_no_thread_can_be_started_one_does_it_all(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    side_by_side(lambda: done.append(threading.current_thread()), 3)
    assert done == [threading.current_thread()]


def test_no_thread_outlives_a_step(monkeypatch):
    monkeypatch.setattr(accumulators, "PER_THREAD", 1)
    before = threading.active_count()
    train(lambda t: 3)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_amid_the_sums_makes_its_own():
    """The child has none of the threads, and must neither wait for them nor miss them."""
    inside, go_on = threading.Event(), threading.Event()
    elsewhere = threading.Thread(target=side_by_side, args=(lambda: (inside.set(), go_on.wait()), 3))
    elsewhere.start()
    inside.wait()
    child = os.fork()
    if not child:
        done = []
        try:
            side_by_side(lambda: done.append(None), 3)
        finally:
            os._exit(0 if len(done) == 3 else 1)
    go_on.set()
    elsewhere.join()
    assert os.waitpid(child, 0)[1] == 0
