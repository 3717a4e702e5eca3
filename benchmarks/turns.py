"""How benchmarks take their times."""

import statistics
import time
from collections.abc import Callable

Task = Callable[[], object]
_SHORT = 1.0  # s


class Seconds(float):
    """What a task that takes its own time returns, because it runs in another process."""


def take_turns(tasks: dict[str, Task], repeats: int) -> dict[str, float]:
    """Return the median time [s] of each task; the tasks run in turn, once each a round, after one round to warm up.

    Before it is timed a task shorter than `_SHORT` runs once more, so that none pays for what the one before it left:
    memory given back, threads asleep.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    last = dict.fromkeys(tasks, 0.0)
    for round_number in range(repeats + 1):
        for name, task in tasks.items():
            if round_number and last[name] < _SHORT:
                task()
            start = time.perf_counter()
            found = task()
            taken = time.perf_counter() - start
            last[name] = taken
            if round_number:
                times[name].append(float(found) if isinstance(found, Seconds) else taken)
    return {name: statistics.median(values) for name, values in times.items()}


def several(task: Task, times: int) -> Task:
    """Return a task that repeats another."""

    def run() -> None:
        for _ in range(times):
            task()

    return run
