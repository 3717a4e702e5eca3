"""Large files are read in seconds, in bounded memory: the benchmark's own files and measurement."""

import importlib.util

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark(root):
    spec = importlib.util.spec_from_file_location("reading_benchmark", root / "benchmarks" / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("map.csv", {"reads": {"trace": 65536, "sample": 1}}),
        ("log.tsv", {"writes": {"write": 32768}}),
        ("noise.csv", {"reads": {"trace": 1, "sample": 100_000}}),
    ],
)
def test_seconds_and_memory(benchmark, tmp_path, name, sizes) -> None:
    benchmark.FILES[name](tmp_path / name, np.random.default_rng(1))
    found = benchmark.measure(tmp_path / name)
    assert found["sizes"] == sizes
    assert found["peak"] < 500
