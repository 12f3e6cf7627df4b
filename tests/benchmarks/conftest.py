"""The benchmarks are scripts beside one another, not a package."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of the benchmarks, from which modules can be imported."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return BENCHMARKS
