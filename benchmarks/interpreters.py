"""Peers that take part in a benchmark from an interpreter of their own, because they need other versions of torch."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turns import Seconds

_REST = 0.01  # s, in which a peer's threads stop to wait for work actively
SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Peer:
    """A peer's script that waits for requests, see `peers/serving.py`.

    Attributes
    ----------
    name, version : of the peer.
    computes : what each of its tasks computes.
    process : the script.
    """

    name: str
    version: str
    computes: dict[str, str]
    process: subprocess.Popen

    def task(self, name: str, times: int = 1) -> Callable[[], Seconds]:
        """Return what runs one of the tasks several times in the peer's process, and gives the time there."""

        def run() -> Seconds:
            found = Seconds(_asked(self.process, {"task": name, "times": times})["seconds"])
            time.sleep(_REST)
            return found

        return run


@contextlib.contextmanager
def peers(
    scripts: Sequence[str], interpreters: Sequence[str], folders: Sequence[str], options: Sequence[object]
) -> Iterator[tuple[list[Peer], list[str]]]:
    """Start each script in the first interpreter that has its peer; end them all afterwards.

    Parameters
    ----------
    scripts : names in the folder `peers`.
    interpreters : paths of Python, tried after the one that runs this.
    folders : from which peers are imported besides.
    options : of the scripts.

    Yields
    ------
    The peers, and a line for each that is missing.

    Raises
    ------
    SystemExit
        When there is no such interpreter.
    """
    for interpreter in interpreters:
        if shutil.which(interpreter) is None:
            raise SystemExit(f"there is no interpreter '{interpreter}'; give the path of a Python that has the peer")
    path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    found: list[Peer] = []
    missing: list[str] = []
    with contextlib.ExitStack() as stack:
        for script in scripts:
            answer: dict[str, Any] = {}
            for interpreter in (sys.executable, *interpreters):
                command = [interpreter, str(SCRIPTS / script), *map(str, options)]
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    env={**os.environ, "PYTHONPATH": path},
                )  # fmt: skip
                stack.callback(_end, process)
                answer = _answer(process)
                if "tasks" in answer:
                    found.append(Peer(answer["peer"], answer["version"], answer["tasks"], process))
                    break
            else:
                missing.append(f"{answer['peer']}: missing ({answer['missing']})")
        yield found, missing


def _asked(process: subprocess.Popen, request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen) -> dict[str, Any]:
    """Return the next answer of a script, also where it ended without one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if line:
        return json.loads(line)
    script = Path(str(process.args[1])).stem  # type: ignore[index]
    return {"peer": script.partition("_")[0], "missing": f"{script} ended with code {process.wait()}", "seconds": "nan"}


def _end(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(timeout=60)
    assert process.stdout is not None
    process.stdout.close()
