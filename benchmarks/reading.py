"""Time and peak memory of reading large files: ``python benchmarks/reading.py [FOLDER]``.

The files are made here (in FOLDER, or in a temporary one): a map of 65,536 cells, a write-verify log of 8192 cells at
four target ranges, and a noise trace of 100,000 samples. Each is read in a process of its own, whose time is from
before `import calib` and whose memory is the largest resident size.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

READ = """
import json, resource, sys, time
start = time.perf_counter()
import calib
imported = time.perf_counter()
tree = calib.read(sys.argv[1])
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
if sys.platform == "linux":  # ru_maxrss is not below that of the process that started this one; VmHWM is its own
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / (1 << 10)
sizes = {name: {str(dim): size for dim, size in node.sizes.items()} for name, node in tree.children.items()}
print(json.dumps({"import": imported - start, "read": end - imported, "peak": peak, "sizes": sizes}))
"""
LEVELS = ((0.0, 5e3), (5.77e3, 6.01e3), (8.51e3, 9.31e3), (80e3, 1e10))  # ohm


def cell_map(path: Path, rng: np.random.Generator) -> None:
    """Write address, row, column and resistance of 256 x 256 cells."""
    resistance = np.exp(rng.normal(10, 0.3, 65536))
    rows = (f"{k},{k // 256},{k % 256},{r!r}\n" for k, r in enumerate(resistance.tolist()))
    path.write_text("address,row,column,resistance (ohm)\n" + "".join(rows))


def write_verify_log(path: Path, rng: np.random.Generator) -> None:
    """Write one row per write: 8192 cells, four target ranges one after the other."""
    rows = []
    for low, high in LEVELS:
        achieved = rng.uniform(max(low, 2e3), min(high, 500e3), 8192)
        attempts = rng.integers(1, 60, 8192)
        rows += [
            f"{30000 + k}\t{low}\t{high}\t{r!r}\t{int(n < 55)}\t{n}\n"
            for k, (r, n) in enumerate(zip(achieved.tolist(), attempts.tolist(), strict=True))
        ]
    header = "address\ttarget r min (ohm)\ttarget r max (ohm)\tfinal r (ohm)\tsuccess\tattempts\n"
    path.write_text(header + "".join(rows))


def noise_trace(path: Path, rng: np.random.Generator) -> None:
    """Write 100,000 samples of a current at 0.1 V with two-level noise."""
    level = np.cumsum(rng.random(100_000) < 1e-3) % 2
    current = 1e-6 * (1 + 0.05 * level + rng.normal(0, 0.01, 100_000))
    rows = (f"{2.5e-3 * k!r},0.1,{i!r}\n" for k, i in enumerate(current.tolist()))
    path.write_text("time (s),voltage (V),current (A)\n" + "".join(rows))


FILES = {"map.csv": cell_map, "log.tsv": write_verify_log, "noise.csv": noise_trace}


def measure(path: Path) -> dict[str, Any]:
    """Return seconds of import and read, the peak memory [MiB] and what was read, of a process that reads one file."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(folder: Path) -> None:
    """Make the files and print a table."""
    print(f"{'file':10} {'size/MB':>8} {'import/s':>9} {'read/s':>7} {'peak/MB':>8}  holds")
    for name, make in FILES.items():
        path = folder / name
        make(path, np.random.default_rng(1))
        output = subprocess.run(
            [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
        ).stdout
        found = json.loads(output)
        size = path.stat().st_size / 1e6
        print(
            f"{name:10} {size:8.2f} {found['import']:9.2f} {found['read']:7.2f} {found['peak']:8.0f}  {found['sizes']}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
