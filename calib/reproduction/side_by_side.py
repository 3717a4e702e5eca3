"""Several trainings side by side, each in a process of its own."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

Progress = Callable[[int, str], None]
_MOST = 4
_ASK, _AT_ONCE = 0.2, 1000  # s; reports
_lines: tuple[Queue, Event] | None = None


def usual_jobs() -> int:
    """Return the number of processor cores that this process may use, at most 4: each process holds the images."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)


def run(work: Callable[..., None], items: Sequence[tuple[Any, ...]], jobs: int, progress: Progress) -> None:
    """Call work(*item, progress) for each item, in `jobs` processes at a time.

    The first error is raised; the others then stop at their next progress. A process whose parent is gone stops too.

    Parameters
    ----------
    work : function of a module. With more than one job the calling script needs 'if __name__ == "__main__"'.
    items : arguments that can be sent to another process.
    jobs : 1 works here.
    progress : called here, whichever process reports.
    """
    if jobs == 1 or len(items) < 2:
        for item in items:
            work(*item, progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    said, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_join, initargs=(said, stop)) as pool:
        try:
            left = {pool.submit(_reporting, work, item) for item in items}
            while left:
                done, left = wait(left, timeout=_ASK, return_when=FIRST_EXCEPTION)
                _pass_on(said, progress)
                for one in done:
                    one.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    _pass_on(said, progress)


def _pass_on(said: Queue, progress: Progress) -> None:
    for _ in range(_AT_ONCE):
        try:
            progress(*said.get_nowait())
        except queue.Empty:
            return


def _join(said: Queue, stop: Event) -> None:
    """Keep the lines to the process that started this one, which alone hears an interrupt."""
    global _lines
    _lines = (said, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reporting(work: Callable[..., None], item: tuple[Any, ...]) -> None:
    work(*item, _report)


def _report(n: int, text: str) -> None:
    assert _lines is not None, "the process was started by run"
    said, stop = _lines
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        os._exit(1)
    if stop.is_set():
        raise KeyboardInterrupt
    said.put((n, text))
