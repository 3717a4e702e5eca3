"""How benchmarks take times, and peers that take part from an interpreter of their own."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = """
import json, sys
print(json.dumps({"peer": "other", "version": sys.argv[1], "tasks": {"step": "nothing"}}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 2.0 * json.loads(line)["times"]}), flush=True)
"""


@pytest.fixture(autouse=True)
def _from_the_folder(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    known = set(sys.modules)
    yield
    for name in {"turns", "interpreters"} - known:
        sys.modules.pop(name, None)


def test_the_time_that_a_peer_took_is_its_own(tmp_path):
    from interpreters import peers  # type: ignore[import-not-found]
    from turns import take_turns  # type: ignore[import-not-found]

    (tmp_path / "other_steps.py").write_text(SCRIPT)
    (tmp_path / "broken_steps.py").write_text("raise SystemExit(3)")
    scripts = (str(tmp_path / "other_steps.py"), str(tmp_path / "broken_steps.py"))
    with peers(scripts, [], [], ["7"]) as (present, missing):
        assert [(peer.name, peer.version, peer.computes) for peer in present] == [("other", "7", {"step": "nothing"})]
        assert missing == ["broken: missing (broken_steps ended with code 3)"]
        assert take_turns({"step": present[0].task("step", 5)}, 3) == {"step": 10.0}
        process = present[0].process
    assert process.returncode == 0


def test_an_interpreter_that_is_not_there_is_refused():
    from interpreters import peers  # type: ignore[import-not-found]

    with pytest.raises(SystemExit, match="no interpreter '/none/python'"), peers([], ["/none/python"], [], []):
        pass
