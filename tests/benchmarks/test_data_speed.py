"""Time and memory of the data are measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_speed_is_measured(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "data_speed.py", "--steps", "16000"]
    out = tmp_path / "speed.json"
    subprocess.run([*command, "--out", out], check=True, capture_output=True)
    document = json.loads(out.read_text())
    assert document["load"]["num_steps"] == document["step"]["num_steps"] == 16_000
    assert document["load"]["memory_beyond_data_mb"] > 0
