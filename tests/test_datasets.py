"""The benchmarks of the data, and what they wrote into results/datasets."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from safe_diffusion_agent.data.collection import default_dataset_id
from safe_diffusion_agent.data.manifest import MANIFEST

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "results" / "datasets"
ROWS = json.loads((FOLDER / "datasets.json").read_text())["datasets"]


def test_the_page_is_that_of_the_measurements():
    as_markdown = runpy.run_path(str(ROOT / "benchmarks" / "datasets.py"))["as_markdown"]
    assert (FOLDER / "README.md").read_text() == as_markdown(ROWS)


def test_every_task_of_the_manifest_has_a_card():
    ids = [default_dataset_id(config.env_id, config.quality) for config in MANIFEST]
    assert {row["dataset_id"] for row in ROWS} <= set(ids)
    assert {row["task"] for row in ROWS} == {c.env_id[len("safe/") : -len("-v0")] for c in MANIFEST}
    for row in ROWS:
        text = (FOLDER / row["folder"] / "card.md").read_text()
        assert row["fingerprint"] in text
        assert (FOLDER / row["folder"] / "card.png").exists()


@pytest.mark.slow
def test_speed_is_measured(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "data_speed.py", "--steps", "16000"]
    out = tmp_path / "speed.json"
    subprocess.run([*command, "--out", out], check=True, capture_output=True)
    document = json.loads(out.read_text())
    assert document["load"]["num_steps"] == document["step"]["num_steps"] == 16_000
    assert document["load"]["memory_beyond_data_mb"] > 0
