"""How benchmarks take their times."""

import statistics
import time
from collections.abc import Callable

Task = Callable[[], object]


class Seconds(float):
    """What a task that takes its own time returns, because it runs in another process."""


def take_turns(tasks: dict[str, Task], repeats: int) -> dict[str, float]:
    """Return the median time [s] of each task; the tasks run in turn, once each a round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            found = task()
            taken = time.perf_counter() - start
            if round_number:
                times[name].append(float(found) if isinstance(found, Seconds) else taken)
    return {name: statistics.median(values) for name, values in times.items()}


def several(task: Task, times: int) -> Task:
    """Return a task that repeats another."""

    def run() -> None:
        for _ in range(times):
            task()

    return run
