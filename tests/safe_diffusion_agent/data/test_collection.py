"""Collection with the real SAC; short, because one gradient step takes 10 ms."""

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from safe_diffusion_agent.data.collection import collect
from safe_diffusion_agent.data.levels import MEASURED_SEED_OFFSET
from safe_diffusion_agent.data.qualities import CollectConfig, default_dataset_id
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import EpisodeRecorder, episode_seed
from safe_diffusion_agent.data.sac import (
    SAC_SETTINGS,
    SacTraining,
    sac_settings,
)
from safe_diffusion_agent.errors import CheckpointError, DatasetError
from safe_envs import TASKS

CONFIG = CollectConfig(env_id="safe/Pendulum-v0", num_steps=600, seed=3)


class Killed(BaseException):
    pass


def kill_at(step):
    def progress(done, total, **_):
        if done == step:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> str:
    state_dir = tmp_path_factory.mktemp("uninterrupted")
    dataset_id = "tests/collected/uninterrupted-v0"
    return collect(CONFIG, state_dir=state_dir, dataset_id=dataset_id)


def test_dataset_is_what_the_environment_said(collected):
    """Every stored action, replayed from its episode's seed, gives the stored numbers."""
    episodes = load_episodes(collected)
    assert episodes.lengths.tolist() == [200, 200, 200]
    env = gym.make("safe/Pendulum-v0")
    row = step = 0
    for episode in range(3):
        obs, _ = env.reset(seed=episode_seed(3, episode))
        np.testing.assert_array_equal(obs, episodes.observations[row])
        for _ in range(200):
            obs, reward, _, truncated, info = env.step(episodes.actions[step])
            row, step = row + 1, step + 1
            np.testing.assert_array_equal(obs, episodes.observations[row])
            assert (reward, info["cost"]) == (episodes.rewards[step - 1], episodes.costs[step - 1])
        assert truncated
        row += 1


def test_metadata_says_what_made_it(collected):
    metadata = load_episodes(collected).metadata
    assert metadata["cost_discount"] == 1.0
    assert metadata["max_budget"] == 60.0
    assert metadata["cost_function"] == "safe_envs.costs:pendulum_cost"
    assert metadata["collect_config"]["seed"] == 3
    assert metadata["behavior_policy"]["num_episodes"] == 20
    assert metadata["snapshots"][-1]["step"] == 600
    assert {"python", "torch", "stable-baselines3"} <= metadata["provenance"]["versions"].keys()
    assert minari.load_dataset(collected).spec.total_steps == 600


@pytest.mark.parametrize("step", [150, 450])
def test_killed_and_continued_collection_is_the_uninterrupted_one(
    collected, tmp_path, step, monkeypatch
):
    monkeypatch.setattr("safe_diffusion_agent.data.sac.CHECKPOINT_INTERVAL", 200)
    arguments = {"state_dir": tmp_path, "dataset_id": f"tests/collected/killed-{step}-v0"}
    with pytest.raises(Killed):
        collect(CONFIG, **arguments, progress=kill_at(step))
    done = []
    dataset_id = collect(CONFIG, **arguments, progress=lambda d, *_, **__: done.append(d))
    assert done[0] == (1 if step < 200 else 401), "it should continue from its last checkpoint"
    assert load_episodes(dataset_id).fingerprint == load_episodes(collected).fingerprint


@pytest.mark.parametrize(
    ("env_id", "num_steps", "step"), [("safe/Hopper-v0", 400, 250), ("safe/BallReach-v0", 600, 400)]
)
def test_training_resumes_with_every_simulator(env_id, num_steps, step, tmp_path, monkeypatch):
    """Episodes that terminate (MuJoCo), and a physics server that a process keeps (Bullet)."""
    monkeypatch.setattr("safe_diffusion_agent.data.sac.CHECKPOINT_INTERVAL", 50)
    monkeypatch.setattr(SacTraining, "take_snapshot", lambda *_, **__: None)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    SacTraining(env_id, num_steps, 0, whole).run()
    with pytest.raises(Killed):
        SacTraining(env_id, num_steps, 0, killed).run(kill_at(step))
    resumed = SacTraining(env_id, num_steps, 0, killed)
    assert 0 < resumed.model.num_timesteps < step
    resumed.run()
    expected = list(SacTraining(env_id, num_steps, 0, whole).episodes())
    episodes = list(resumed.episodes())
    assert len(episodes) == len(expected) > 1
    for mine, theirs in zip(episodes, expected, strict=True):
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_random_actions_are_a_tenth_of_a_training_at_most():
    assert sac_settings("safe/Hopper-v0", 1_000_000) == {"learning_starts": 10_000}
    assert sac_settings("safe/Hopper-v0", 30_000) == {"learning_starts": 3_000}
    assert sac_settings("safe/Reacher-v0", 20_000) == {"learning_rate": 1e-3}
    assert set(SAC_SETTINGS) == {spec.same_but_costs or name for name, spec in TASKS.items()}


def test_costs_of_snapshots_are_discounted_as_budgets_are(tmp_path):
    training = SacTraining("safe/HalfCheetah-v0", 1000, 0, tmp_path)
    training.take_snapshot(num_episodes=1)
    env = gym.make("safe/HalfCheetah-v0")
    obs, _ = env.reset(seed=episode_seed(MEASURED_SEED_OFFSET, 0))
    costs, truncated = [], False
    while not truncated:
        obs, _, _, truncated, info = env.step(training.model.predict(obs, deterministic=True)[0])
        costs.append(info["cost"])
    expected = sum(0.99**t * cost for t, cost in enumerate(costs))
    assert training.snapshots[0].mean_cost == pytest.approx(expected)


def test_a_finished_collection_is_kept(collected, tmp_path):
    def no_progress(*_, **__):
        raise AssertionError("it was collected again")

    again = collect(CONFIG, state_dir=tmp_path, dataset_id=collected, progress=no_progress)
    assert again == collected


def test_a_dataset_of_another_config_is_not_replaced_unasked(collected, tmp_path):
    other = CollectConfig(env_id="safe/Pendulum-v0", num_steps=400, seed=0)
    with pytest.raises(DatasetError, match="Choose another dataset id"):
        collect(other, state_dir=tmp_path, dataset_id=collected)


def test_a_folder_of_another_collection_is_refused(tmp_path):
    SacTraining("safe/Pendulum-v0", 200, 0, tmp_path).save()
    with pytest.raises(CheckpointError, match="belongs to a collection with"):
        SacTraining("safe/Pendulum-v0", 200, 1, tmp_path)


def test_policy_evaluation_changes_no_training_episode(tmp_path):
    training = SacTraining("safe/Pendulum-v0", 200, 0, tmp_path)
    before = torch.get_rng_state()
    training.take_snapshot(num_episodes=2)
    assert training.env.num_finished == 0 and not training.env.finished
    assert torch.equal(before, torch.get_rng_state())
    assert 0 < training.snapshots[0].mean_return < 200


def test_a_snapshot_acts_as_the_policy_did(tmp_path):
    training = SacTraining("safe/Pendulum-v0", 200, 0, tmp_path)
    training.take_snapshot(num_episodes=1)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    torch.manual_seed(0)
    expected, _ = training.model.predict(observations)
    policy = training.load_policy(training.snapshots[0])
    torch.manual_seed(0)
    np.testing.assert_array_equal(policy(observations), expected)


def test_threads_are_left_as_they_were(collected):
    before = torch.get_num_threads()
    assert before >= 1
    collect(CONFIG, state_dir="unused", dataset_id=collected)
    assert torch.get_num_threads() == before


def test_recorder_keeps_terminations_and_truncations_apart():
    class Ends(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (1,))
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {"cost": 0.0}

        def step(self, action):
            stop = bool(action[0] > 0)
            return np.zeros(1, np.float32), 1.0, stop, not stop, {"cost": 2.0}

    recorder = EpisodeRecorder(Ends(), seed=0)
    for action in (0.5, -0.5):
        recorder.reset()
        recorder.step(np.array([action], np.float32))
    ends, cut = recorder.finished
    assert ends["terminations"].tolist() == [True] and ends["truncations"].tolist() == [False]
    assert cut["terminations"].tolist() == [False] and cut["truncations"].tolist() == [True]
    assert ends["costs"].tolist() == [2.0]


def test_names_and_impossible_sizes():
    assert default_dataset_id("safe/Pendulum-v0") == "safe-envs/pendulum/sac-replay-v0"
    with pytest.raises(ValueError, match="at least one episode"):
        CollectConfig(env_id="safe/Pendulum-v0", num_steps=100)
    with pytest.raises(gym.error.NameNotFound, match="Did you mean"):
        CollectConfig(env_id="safe/Pendulum-v1")
