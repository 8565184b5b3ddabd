"""The whole road at toy size: the library functions, and the command in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.cli import app, main
from safe_diffusion_agent.errors import CheckpointError, DatasetError, UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments import stages as pipeline
from safe_envs import TASKS

TOY = {"num_steps": 30, "batch_size": 16}
PNG = b"\x89PNG"


def trebi(*arguments):
    command = [sys.executable, "-m", "safe_diffusion_agent", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )


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


def test_evaluation_does_not_depend_on_what_the_agent_did_before(tiny_agent, tmp_path):
    config = EvaluationConfig(ratios=(0.5,), num_episodes=1)
    documents = []
    for name in ("first", "second"):
        documents.append(pipeline.evaluate(tiny_agent, tmp_path / name, config=config))
        tiny_agent.act([-1.0, 0.0, 0.0], 3.0, 100)
    assert documents[0]["budgets"] == documents[1]["budgets"]


RUN = ("run", "safe/Pendulum-v0", "--steps", 600, "--episodes", 1, "--ratios", "0.5,1.0")
SETTINGS = ("--set", "num_steps=1000", "--set", "batch_size=16")


def test_the_command_runs_is_interrupted_and_continues(tmp_path):
    out = tmp_path / "run"
    dataset = ("--dataset-id", "tests/interrupted-run-v0")
    command = [sys.executable, "-m", "safe_diffusion_agent", *map(str, RUN), str(out), *dataset]
    process = subprocess.Popen(
        [*command, *SETTINGS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A suite that a shell started in the background hands down that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((out / "collection").glob("state.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)  # on into the training: HDF5, which is written in between, may swallow a signal
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "Run the same command again to continue" in output
    assert "Traceback" not in output

    finished = trebi(*RUN, out, *dataset, *SETTINGS)
    assert finished.returncode == 0, finished.stderr
    assert "over budget" in finished.stdout and "behavior policy" in finished.stdout
    assert TrebiAgent.load(out).about["behavior_policy"]["num_episodes"] == 20
    assert len((out / "evaluation" / "episodes.csv").read_text().splitlines()) == 3

    start = time.monotonic()
    again = trebi(*RUN, out, *dataset, *SETTINGS)
    assert again.returncode == 0
    assert time.monotonic() - start < 20, "everything is there already"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "safe/Pendulm-v0", "x"], "Did you mean 'safe/Pendulum-v0'?"),
        (["train", "none/such-v0", "x"], "There is no local Minari dataset 'none/such-v0'"),
        (["evaluate", "pendulm"], "There is no folder or pretrained agent 'pendulm'"),
        (["run", "safe/Pendulum-v0", "x", "--set", "penalty"], "--set should be key=value"),
        (["run", "safe/Pendulum-v0", "x", "--ratios", "a"], "--ratios should be numbers"),
        (["run", "safe/Pendulum-v0", "x", "--steps", "5"], "num_steps should be at least one"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_with:
        main(arguments)
    assert exit_with.value.code == 1
    output = capsys.readouterr()
    assert message in " ".join(output.out.split())
    assert "Traceback" not in output.out + output.err


@pytest.mark.parametrize(
    "command",
    [
        "collect",
        "describe",
        "import",
        "max-budget",
        "train",
        "evaluate",
        "run",
        "list",
    ],
)
def test_help_shows_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: trebi {command}" in result.stdout


def test_list_shows_every_task_preset_and_dataset(tiny_dataset):
    output = trebi("list").stdout
    for name in (*TASKS, "paper, small, reference", tiny_dataset):
        assert name in output


def test_the_console_script_is_installed():
    script = Path(sys.executable).parent / "trebi"
    assert subprocess.run([script, "--help"], capture_output=True).returncode == 0
