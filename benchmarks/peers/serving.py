"""What a peer's script does beside its own steps: it takes a network's sizes and answers requests for timed steps.

The scripts of this folder run in whatever interpreter has the peer, and know nothing of calib. The first line that a
script writes says which peer it is, its version and what each of its tasks computes, or why it is missing. Then each
line of its input, ``{"task": name, "times": n}``, runs a task n times and is answered by ``{"seconds": total}``.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Task = Callable[[], object]
CANNOT = (ImportError, OSError, AttributeError, RuntimeError)
"""What libraries raise that do not fit to one another."""


def serve(peer: str, make: Callable[[list[int], int], tuple[str, dict[str, tuple[str, Task]]]]) -> None:
    """Answer requests until the input ends.

    Parameters
    ----------
    peer : its name.
    make : called with sizes and batch; returns the version and for each task what it computes, and itself.
    """
    parser = argparse.ArgumentParser(description=f"Timed training steps of {peer}, by requests.")
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    torch.set_num_threads(arguments.threads)
    try:
        version, tasks = make(arguments.sizes, arguments.batch)
    except CANNOT as error:
        answer({"peer": peer, "missing": " ".join(str(error).split())[:120] or type(error).__name__})
        return
    answer({"peer": peer, "version": version, "tasks": {name: what for name, (what, _) in tasks.items()}})
    for line in sys.stdin:
        asked = json.loads(line)
        task = tasks[asked["task"]][1]
        start = time.perf_counter()
        for _ in range(asked["times"]):
            task()
        answer({"seconds": time.perf_counter() - start})


def network(sizes: list[int], layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Return layers with sigmoids between them."""
    parts: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        parts += [layer(n_in, n_out), nn.Sigmoid()]
    return nn.Sequential(*parts[:-1])


def step(model: nn.Module, sizes: list[int], batch: int, before: Task) -> Task:
    """Return forward, loss and backward of a network.

    Parameters
    ----------
    before : called before each step, to draw new devices.
    """
    stream = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, sizes[0], generator=stream), torch.randint(sizes[-1], (batch,), generator=stream)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        before()
        nn.functional.cross_entropy(model(x), y).backward()

    return run
