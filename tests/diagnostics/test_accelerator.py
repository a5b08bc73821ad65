"""The benchmark of a GPU runs where there is none, at a size at which its figures mean nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"


@pytest.mark.slow
def test_the_benchmark_runs_at_a_tiny_size():
    done = subprocess.run([sys.executable, SCRIPT, "--tiny"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("plain", "default", "all", "told from steps"))
