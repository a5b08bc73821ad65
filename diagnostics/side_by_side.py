"""A piece of work that several threads share, which are gone when it is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


def side_by_side(work: Callable[[], object], threads: int) -> None:
    """Call `work` in so many threads at once, of which this is one; raise what any of them raised.

    The threads are started anew each time, and none outlives the call. So none is missing in a forked process or after
    the number has changed, and none is left when nobody watches any more. `work` must be such that fewer threads can do
    all of it: where none can be started, as at a limit of the system or at the interpreter's end, this one does.
    """
    with ThreadPoolExecutor(threads - 1) as pool:  # waits for all, whatever is raised inside
        helpers: list[Future[object]] = []
        try:
            for _ in range(threads - 1):
                helpers.append(pool.submit(work))
        except RuntimeError:  # no thread can be started
            pass
        work()
        for helper in helpers:
            helper.result()
