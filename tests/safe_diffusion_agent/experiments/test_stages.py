"""The stages at toy size."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.errors import CheckpointError, DatasetError, UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.methods.table import METHODS

TOY = {"num_steps": 30, "batch_size": 16}
PNG = b"\x89PNG"


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_train_writes_an_agent_and_its_losses(tiny_dataset, tmp_path):
    agent = pipeline.train(tiny_dataset, tmp_path, settings=TOY)
    rows = read_table(tmp_path / "losses.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    assert all(np.isfinite(float(row["denoising"])) for row in rows)
    assert (tmp_path / "losses.png").read_bytes().startswith(PNG)
    assert not (tmp_path / "training.safetensors").exists()
    loaded = TrebiAgent.load(tmp_path)
    assert loaded.config == agent.config
    assert loaded.task.dataset_id == tiny_dataset


def test_train_keeps_a_finished_agent_and_refuses_another(tiny_dataset, tmp_path):
    pipeline.train(tiny_dataset, tmp_path, settings=TOY)
    before = (tmp_path / "agent.safetensors").read_bytes()
    pipeline.train(tiny_dataset, tmp_path, settings=TOY, progress=pytest.fail)
    assert (tmp_path / "agent.safetensors").read_bytes() == before
    with pytest.raises(CheckpointError, match=r"holds another agent \(seed is 0, not 1\)"):
        pipeline.train(tiny_dataset, tmp_path, settings=TOY, seed=1)


def test_a_method_that_learns_online_is_given_the_environment(tmp_path, monkeypatch, tiny_agent):
    given = []

    def fit(source, config, **options):
        given.append((source, config.preset, sorted(options)))
        return tiny_agent, [{"step": 1, "loss": 0.0}]

    monkeypatch.setitem(tiny_agent.about, "seed", 3)
    monkeypatch.setitem(METHODS, "trebi", replace(METHODS["trebi"], fit=fit, learns="online"))
    agent = pipeline.train("safe_envs:safe/Pendulum-v0", tmp_path, seed=3)
    options = ["device", "progress", "seed", "state_path"]
    assert given == [("safe_envs:safe/Pendulum-v0", "quick", options)]
    assert agent is tiny_agent and (tmp_path / "agent.safetensors").exists()
    with pytest.raises(ValueError, match="^trebi learns in an environment: give the id of a task"):
        pipeline.train("no/such-v0", tmp_path)


def test_a_method_that_learns_from_data_wants_a_dataset(tmp_path):
    with pytest.raises(ValueError, match="^trebi learns from a dataset: give the id of one"):
        pipeline.train("safe/Pendulum-v0", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def free_dataset(datasets_root):
    """Nothing costs in it, and so its maximum budget is zero."""
    rng, last = np.random.default_rng(0), np.arange(200) == 199
    episode = {
        "observations": rng.normal(size=(201, 3)).astype(np.float32),
        "actions": rng.uniform(-2.0, 2.0, size=(200, 1)).astype(np.float32),
        "rewards": rng.normal(size=200), "costs": np.zeros(200),
        "terminations": np.zeros(200, bool), "truncations": last,
    }  # fmt: skip
    name, metadata = "tests/free-v0", {"cost_discount": 1.0, "max_episode_steps": 200}
    write_dataset(name, "safe/Pendulum-v0", [episode] * 2, metadata)
    return name


@pytest.mark.parametrize("method", METHODS)
def test_data_without_costs_teach_no_budget(free_dataset, tmp_path, method):
    if not METHODS[method].constrained:
        settings = {"num_steps": 2, "batch_size": 4}
        agent = pipeline.train(free_dataset, tmp_path, method=method, settings=settings)
        with pytest.raises(ValueError, match="max_budget should be positive"):
            pipeline.evaluate(agent, tmp_path / "evaluation", progress=pytest.fail)
        return
    with pytest.raises(ValueError, match=f"should be positive.*`trebi max-budget {free_dataset}`"):
        pipeline.train(free_dataset, tmp_path / "run", method=method, progress=pytest.fail)
    assert not (tmp_path / "run").exists()


def test_train_refuses_what_it_does_not_know(tiny_dataset, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'quick'"):
        pipeline.train(tiny_dataset, tmp_path, preset="quik")
    with pytest.raises(DatasetError, match="no costs at 'infos/price'"):
        pipeline.train(tiny_dataset, tmp_path, cost_key="infos/price")


def test_evaluate_writes_results_that_belong_together(tiny_agent, tmp_path):
    config = EvaluationConfig(ratios=(0.2, 1.0), num_episodes=2)
    document = pipeline.evaluate(tiny_agent, tmp_path, config=config)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(document))
    rows = read_table(tmp_path / "episodes.csv")
    assert len(rows) == 4
    for summary in document["budgets"]:
        chosen = [row for row in rows if float(row["ratio"]) == summary["ratio"]]
        over = sum(row["over_budget"] == "True" for row in chosen)
        assert over == summary["over_budget"]["num_episodes"]
        returns = [float(row["episode_return"]) for row in chosen]
        assert summary["mean_return"] == pytest.approx(np.mean(returns))
    assert (tmp_path / "evaluation.png").read_bytes().startswith(PNG)
    assert {"command", "versions", "hardware"} <= document["provenance"].keys()
    again = pipeline.evaluate(tiny_agent, tmp_path, config=config, progress=pytest.fail)
    assert json.dumps(again) == json.dumps(document)


def test_a_file_in_the_way_is_told_before_the_work(tiny_dataset, tiny_agent, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file should be a folder, and there is a file"):
        pipeline.evaluate(tiny_agent, tmp_path / "file", progress=pytest.fail)
    with pytest.raises(ValueError, match="file/run should be a folder"):
        pipeline.train(tiny_dataset, tmp_path / "file" / "run", progress=pytest.fail)


def test_evaluation_does_not_depend_on_what_the_agent_did_before(tiny_agent, tmp_path):
    config = EvaluationConfig(ratios=(0.5,), num_episodes=1)
    documents = []
    for name in ("first", "second"):
        documents.append(pipeline.evaluate(tiny_agent, tmp_path / name, config=config))
        tiny_agent.act([-1.0, 0.0, 0.0], 3.0, 100)
    assert documents[0]["budgets"] == documents[1]["budgets"]


def test_evaluating_a_finished_agent_loads_neither_sac_nor_pictures():
    code = (
        "import sys; import safe_diffusion_agent.experiments.stages;"
        "print([name for name in ('stable_baselines3', 'matplotlib') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output.strip() == "[]"
