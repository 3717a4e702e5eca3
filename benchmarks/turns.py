"""How benchmarks take their times."""

import statistics
import time
from collections.abc import Callable

Task = Callable[[], object]


def take_turns(tasks: dict[str, Task], repeats: int) -> dict[str, float]:
    """Return the median time [s] of each task; the tasks run in turn, once each a round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
