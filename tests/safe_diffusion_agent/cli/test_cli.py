"""The command at toy size, in this process and in one of its own."""

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
from safe_diffusion_agent.cli.options import parse_function
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.errors import UnknownNameError
from safe_envs import TASKS, costs


def trebi(*arguments):
    command = [sys.executable, "-m", "safe_diffusion_agent", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )


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
        (["train", "none/such-v0", "x", "--cost-fn", "over_limit"], "Did you mean 'speed_limit'?"),
        (["train", "none/such-v0", "x", "--cost-fn", "safe_envs.costs:cone"], "function of (obs"),
        (["train", "none/such-v0", "x", "--cost-fn", "no_such:cost"], "No module named 'no_such'"),
        (["reproduce", "fig13"], "There is no study 'fig13'. Did you mean 'fig3'?"),
        (["reproduce", "fig1", "--methods", "trebi:quik"], "Did you mean 'quick'?"),
        (["reproduce", "fig7", "--methods", "caps"], "needs a method that plans; caps does not"),
        (["collect", "--all", "--jobs", "0"], "jobs should be positive"),
        (["collect", "safe/Pendulum-v0", "--policy", "none.zip"], "There is no file none.zip"),
        (["collect", "safe/Pendulum-v0", "--policy", "random,shar=1"], "Did you mean 'share'?"),
        (["collect", "safe/Pendulum-v0", "--policy", "random,share=x"], "--policy should be like"),
        (["collect", "safe/Pendulum-v0", "--policy", "random,share"], "--policy should be like"),
        (["collect", "safe/Pendulum-v0", "--policy", "random,share=nan"], "should be positive"),
        (["collect", "--all", "--policy", "random"], "--policy trains no SAC"),
        (["collect", "safe/Pendulum-v0", "--num-envs", "2"], "--num-envs needs a --policy"),
        (["collect", "--experts"], "--experts has no effect without --all: leave it out"),
        (["collect", "--all", "--experts"], "The expert should be in logs/sac/HalfCheetah-v3_1"),
        (["collect", "--all", "--steps", "9"], "--steps has no effect with --all: leave it out"),
        (["collect", "safe/Pendulum-v0", "--max-steps", "9"], "--max-steps has no effect wit"),
        (["describe", "--all", "--cost-fn", "speed"], "--cost-fn has no effect with --all"),
        (["train", "a/b-v0", "x", "--seed", "1", "--seeds", "2"], "--seed has no effect with --s"),
        (["reproduce", "ablation", "--scale", "paper"], "has a scale of its own"),
        (["reproduce", "fig1", "--episodes", "0"], "num_episodes should be positive. Received 0"),
        (["import", "none.hdf5", "x/y-v0"], "none.hdf5 should be an HDF5 file that can be read"),
        (["import", "file", "x/y-v0"], "file should be an HDF5 file that can be read"),
        (["evaluate", "[red]"], "There is no folder or pretrained agent '[red]'"),
        (["evaluate", "pendulum", "--ratios", "0.5,0.5"], "ratios should be different"),
        (["evaluate", "pendulum", "--device", "cdua"], "device should be 'cpu', 'cuda'"),
        (["evaluate", "pendulum", "--env", "Pendulum-v1"], 'reports no info["cost"]'),
        (["evaluate", "pendulum", "--out", "file"], "file should be a folder"),
        (["evaluate", "pendulum", "--out", "file/x"], "file/x should be a folder"),
        (["describe", "tests/pendulum/swinging-v0", "--out", "file"], "file"),
        (["describe", "--all"], "None of the paper's datasets is on this machine"),
        (["inspect", "pendulum", "--out", "name"], "A picture should end in .png"),
        (["inspect", "pendulum", "--step", "-5"], "step should be zero or more. Received -5"),
    ],
)
@pytest.mark.usefixtures("tiny_dataset")
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
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
        "reproduce",
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


def test_cost_functions_that_are_offered_can_be_called():
    """As those of one step are, whatever the task; the others of `safe_envs.costs` cannot be."""
    observation, info = np.zeros(60), {"x_velocity": 1.0, "speed_limit": 2.0}
    info |= {"touches_box": 0, "num_puddles": 0}
    for name in costs.COST_FUNCTIONS:
        assert parse_function(name)(observation, observation, observation, info) >= 0.0
    assert parse_function("safe_envs.costs:speed_cost") is costs.speed_cost
    for name in ("unsafe_angle", "unsafe_region", "over_limit"):
        with pytest.raises(UnknownNameError, match="cost function"):
            parse_function(name)


def test_the_console_script_finds_modules_of_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text("def cost(observation, action, next_observation, info): 0\n")
    script = Path(sys.executable).parent / "trebi"
    command = [script, "train", "none/such-v0", "run", "--cost-fn", "mine:cost"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "There is no local Minari dataset 'none/such-v0'" in result.stdout


def test_two_agents_do_not_share_a_folder_of_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("two/a", "two-a"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SystemExit):
        main(["evaluate", "two/a", "two-a", "--out", "both"])
    output = " ".join(capsys.readouterr().out.split())
    assert "two/a and two-a would share the folder both/two-a" in output


def test_several_agents_are_trained_and_evaluated(tiny_dataset, tmp_path):
    """Side by side; in the folders that are announced."""
    command = ["train", tiny_dataset, tmp_path, "--method", "bc", "--seeds", "0,1", "--jobs", "2"]
    result = trebi(*command, "--set", "num_steps=4")
    assert result.returncode == 0, result.stderr
    runs = [tmp_path / "seed-0", tmp_path / "seed-1"]
    out = ("--out", tmp_path / "out", "--episodes", 1, "--ratios", 1.0)
    result = trebi("evaluate", *runs, *out)
    assert result.returncode == 0 and result.stdout.count("written") == 2, result.stderr
    for run in runs:
        assert (run / "agent.safetensors").exists()
        folder = tmp_path / "out" / str(run).strip("/").replace("/", "-")
        assert json.loads((folder / "results.json").read_text())["evaluation"]["num_episodes"] == 1


def test_policies_collect(tmp_path, monkeypatch, capsys):
    """What is announced is what is made; a function is found where the command is given."""
    (tmp_path / "controllers.py").write_text("def push(obs):\n    return 0.1 + 0.0 * obs[:, :1]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["collect", "safe/Pendulum-v0", "--steps", "800", "--dataset-id", "tests/cli/own-v0"]
    command += ["--policy", "controllers:push,share=0.5", "--policy", "random,share=0.5"]
    for done in ("to be collected", "done"):
        result = CliRunner().invoke(app, [*command, "--dry-run"])
        assert result.exit_code == 0 and f"tests/cli/own-v0 ({done})" in result.stdout
        assert "push" in result.stdout and not (tmp_path / "runs").exists() or done == "done"
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0 and "Dataset: tests/cli/own-v0" in result.stdout
    episodes = load_episodes("tests/cli/own-v0")
    assert [p["num_episodes"] for p in episodes.metadata["policies"]] == [2, 2]
    pushed = np.isclose(episodes.actions[:, 0], 0.1).reshape(4, 200).all(axis=1)
    assert pushed.sum() == 2


def test_a_dry_run_trains_nothing(tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("no-datasets")))
    result = CliRunner().invoke(app, ["collect", "--all", "--max-steps", "1000", "--dry-run"])
    assert result.exit_code == 0 and result.stdout.count("to be collected") == 13
    assert "safe-envs/hopper/medium-v0 (to be collected)" in result.stdout
    assert not list(tmp_path.iterdir())


def test_studies_are_listed_and_their_rows_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["reproduce"])
    assert "Penalty n, on Pendulum" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["reproduce", "fig4b", "--dry-run", "--methods", "trebi:small", "--seeds", "3"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "penalty" in line]
    assert len(lines) == 4
    assert {line[-3] for line in lines} == {"3"} and {line[-1] for line in lines} == {"no"}
    ids = {word for line in lines for word in line if word.startswith("safe-envs/")}
    assert len(ids) == 1 and ids.pop().endswith("-v0"), "whole, also in a pipe"
    assert not list(tmp_path.iterdir())
