"""The benchmarks of latency: the plain way is right, and the programs run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_diffusion_agent.experiments.pages.timing import latency_page

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def test_the_plain_way_plans_what_the_reference_preset_plans(monkeypatch):
    """Two implementations, the same weights and noise, the same action."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from latency_planners import TASKS, cases

    plain, ours, *_ = cases(TASKS["HalfCheetah"], torch.device("cpu"), small=True)
    assert ours.compared_with == plain.name
    obs = np.linspace(-1, 1, 17).astype(np.float32)
    for budget in (-1e9, 0.0, 1e9):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            expected = plain.plain.act(obs[None], budget)
        action = ours.agent.act(obs, budget, generator=torch.Generator().manual_seed(7))
        np.testing.assert_allclose(action, expected.clip(-1.0, 1.0), atol=1e-4)


@pytest.mark.slow
def test_latency_is_measured(tmp_path):
    command = [sys.executable, BENCHMARKS / "latency.py", "--small", "--rounds", "1"]
    command += ["--limit", "1", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("act-pendulum-*.json")
    document = json.loads(path.read_text())
    rows = {row["planner"]: row for row in document["rows"]}
    assert rows["`paper`"]["milliseconds"]["1"] > rows["`realtime`"]["milliseconds"]["1"] > 0
    assert all(row["milliseconds"]["1"] > row["floor_milliseconds"] > 0 for row in rows.values())
    assert rows["`paper`"]["gigaflop"] > rows["`paper`, nobody over budget"]["gigaflop"]
    (training,) = tmp_path.glob("training-halfcheetah-*.json")
    rows = json.loads(training.read_text())["training"]
    assert {row["networks"] for row in rows} == {"U-Net", "MLP"}
    assert all(0 < row["ours_samples_per_second"] < row["most_samples_per_second"] for row in rows)
    assert "GFLOP" in latency_page(tmp_path)


@pytest.mark.slow
def test_latency_is_measured_beside_other_processes(tmp_path):
    command = [sys.executable, BENCHMARKS / "latency.py", "--parts", "load", "--small"]
    subprocess.run([*command, "--acts", "1", "--out", tmp_path], check=True, capture_output=True)
    (path,) = tmp_path.glob("load-*.json")
    document = json.loads(path.read_text())
    assert len(document["training"]) >= 2
    assert all(row["steps_per_second"] > 0 for row in document["training"])
    rows = document["rows"]
    cases = {(row["execution"], row["busy_processes"] > 0) for row in rows}
    assert len(cases) == 4
    assert all(0 < row["median_ms"] <= row["longest_ms"] for row in rows)
    assert "beside" in latency_page(tmp_path)
