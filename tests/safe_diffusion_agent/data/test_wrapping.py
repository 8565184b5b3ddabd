"""`RecordEpisodes` around loops that end well, and in every other way."""

import os
import signal
import subprocess
import sys

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics
from stable_baselines3 import SAC

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.wrapping import RecordEpisodes
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.errors import DatasetError
from safe_envs import CostSignal


class Plant(gym.Env):
    """Not registered, without a time limit; gives the same array again and again."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, length=3, costs=None):
        self.length, self.costs, self.state = length, costs or {}, np.zeros(2, np.float32)
        self.closed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state[:] = self.np_random.normal(), 0.0
        return self.state, {}

    def step(self, action):
        self.state += 1.0
        step = int(self.state[1])
        cost = self.costs.get(step, 0.5 * step)
        info = {} if cost is None else {"cost": cost}
        return self.state, -1.0, step == self.length, False, info

    def close(self):
        self.closed += 1


ACTION = np.array([0.25], np.float32)


def run(env, *lengths, seed=None):
    for length in lengths:
        env.reset(seed=seed)
        for _ in range(length):
            env.step(ACTION)


def labels(dataset_id, name):
    dataset = minari.load_dataset(dataset_id)
    metadata = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    return [episode.get(name) for episode in metadata]


def test_a_loop_is_stored_as_it_was():
    plant = Plant()
    with RecordEpisodes(plant, "tests/plant/whole-v0", metadata={"algorithm": "ours"}) as env:
        run(env, 3, seed=7)
        run(env, 3)
    assert plant.closed == 1
    episodes = load_episodes("tests/plant/whole-v0")
    first = np.float32(gym.utils.seeding.np_random(7)[0].normal())
    np.testing.assert_allclose(episodes.observations[:4, 0], first + np.arange(4), rtol=1e-6)
    assert episodes.observations[:, 1].tolist() == [0, 1, 2, 3] * 2, "every row is a copy"
    assert episodes.costs.tolist() == [0.5, 1.0, 1.5] * 2
    assert episodes.rewards.tolist() == [-1.0] * 6 and episodes.terminated.all()
    assert (episodes.actions == 0.25).all()
    assert labels("tests/plant/whole-v0", "seed") == [7, None]
    assert episodes.metadata["algorithm"] == "ours" and episodes.cost_discount == 1.0
    assert "versions" in episodes.metadata["recordings"][0]["provenance"]


def test_reset_and_close_cut_episodes():
    with RecordEpisodes(Plant(), "tests/plant/cut-v0", max_episode_steps=3) as env:
        env.reset()
        run(env, 2, 3, 1)
        env.close()
    episodes = load_episodes("tests/plant/cut-v0")
    assert episodes.lengths.tolist() == [2, 3, 1]
    assert episodes.terminated.tolist() == [False, True, False]
    assert labels("tests/plant/cut-v0", "cut") == [True, False, True]
    assert episodes.max_episode_steps == 3
    with RecordEpisodes(Plant(), "tests/plant/uncut-v0", keep_cut=False) as env:
        run(env, 2, 3, 1)
    assert load_episodes("tests/plant/uncut-v0").lengths.tolist() == [3]


def test_the_learning_of_sb3_is_recorded(tmp_path):
    """And says what `safe_envs` knows of the task, whoever watches in between."""
    env = RecordEpisodeStatistics(gym.make("safe/HalfCheetah-v0", max_episode_steps=40))
    recorded = RecordEpisodes(env, "tests/plant/sac-v0")
    model = SAC("MlpPolicy", recorded, learning_starts=100, buffer_size=100, seed=0)
    model.learn(90)
    assert recorded.num_episodes == 2
    recorded.close()
    episodes = load_episodes("tests/plant/sac-v0")
    assert episodes.lengths.tolist() == [40, 40, 10]
    assert (episodes.env_id, episodes.cost_discount) == ("safe/HalfCheetah-v0", 0.99)
    assert episodes.max_episode_steps == 40
    stored = model.replay_buffer.observations[:40, 0]
    np.testing.assert_allclose(episodes.observations[:40], stored, rtol=1e-6)


def test_an_environment_that_was_wrapped_has_no_id_of_its_own():
    def cost(observation, action, next_observation, info):
        return float(abs(action[0]))

    env = CostSignal(gym.make("Pendulum-v1", max_episode_steps=2), cost)
    with RecordEpisodes(env, "tests/plant/wrapped-v0", cost_discount=0.9) as env:
        run(env, 2)
    episodes = load_episodes("tests/plant/wrapped-v0")
    assert (episodes.env_id, episodes.max_episode_steps) == (None, 2)
    assert episodes.cost_discount == 0.9
    assert "cost" in episodes.metadata["cost_function"]


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({2: np.nan}, "cost of a step should be finite. Received nan at step 1"),
        ({2: None}, r'Step 1 of the episode has no info\["cost"\]: wrap .*CostSignal'),
    ],
)
def test_a_bad_cost_stops_at_its_step_and_loses_nothing(costs, message):
    dataset_id = f"tests/plant/bad-{'nan' if costs[2] else 'none'}-v0"
    env = RecordEpisodes(Plant(costs=costs), dataset_id)
    with pytest.raises(DatasetError, match=message):
        run(env, 3)
    env.close()
    assert load_episodes(dataset_id).costs.tolist() == [0.5]


def test_an_id_that_exists_is_extended_only_when_told():
    name = "tests/plant/extended-v0"
    for lengths, options in (((3, 2), {}), ((3,), {"extend": True})):
        with RecordEpisodes(Plant(), name, **options) as env:
            run(env, *lengths, seed=1)
    assert load_episodes(name).lengths.tolist() == [3, 2, 3]
    assert labels(name, "cut") == [False, True, False] and labels(name, "seed") == [1, 1, 1]
    assert len(load_episodes(name).metadata["recordings"]) == 2
    before = load_episodes(name).fingerprint
    with pytest.raises(DatasetError, match="exists. Choose another id, or add to it with extend"):
        RecordEpisodes(Plant(), name)
    RecordEpisodes(Plant(), name, extend=True).close()  # nothing to add
    assert load_episodes(name).fingerprint == before
    with pytest.raises(DatasetError, match="cost_discount is 1.0, not 0.9. Choose another id"):
        RecordEpisodes(Plant(), name, extend=True, cost_discount=0.9)


def test_a_dataset_of_something_else_is_not_extended(tiny_dataset):
    with pytest.raises(DatasetError, match="not recorded by RecordEpisodes"):
        RecordEpisodes(gym.make("safe/Pendulum-v0"), tiny_dataset, extend=True)


KILLED = """
import sys; sys.path[:0] = {path}
import os, signal
from test_wrapping import Plant, RecordEpisodes, run
env = RecordEpisodes(Plant(), "tests/plant/killed-v0", interval=6)
run(env, 3, 3, 3, 2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_its_last_interval_and_no_more():
    name, path = "tests/plant/killed-v0", [os.path.dirname(__file__), *sys.path]
    result = subprocess.run([sys.executable, "-c", KILLED.format(path=path)], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    with pytest.raises(DatasetError, match="was interrupted. Continue it with extend=True"):
        RecordEpisodes(Plant(), name)
    assert name not in minari.list_local_datasets()
    with RecordEpisodes(Plant(), name, extend=True) as env:
        assert env.num_episodes == 2
        run(env, 1)
    assert load_episodes(name).lengths.tolist() == [3, 3, 1]


def test_a_process_killed_after_writing_does_not_store_twice(monkeypatch):
    name = "tests/plant/twice-v0"
    env = RecordEpisodes(Plant(), name)
    run(env, 3)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    env.close()
    monkeypatch.undo()
    with RecordEpisodes(Plant(), name, extend=True) as env:
        run(env, 2)
    assert load_episodes(name).lengths.tolist() == [3, 2]


def test_two_do_not_record_under_one_id():
    with RecordEpisodes(Plant(), "tests/plant/once-v0") as env:
        with pytest.raises(DatasetError, match="is being recorded already"):
            RecordEpisodes(Plant(), "tests/plant/once-v0", extend=True)
        run(env, 3)
    assert load_episodes("tests/plant/once-v0").lengths.tolist() == [3]


def test_nothing_recorded_is_an_error_that_still_closes():
    plant = Plant()
    env = RecordEpisodes(plant, "tests/plant/nothing-v0")
    env.reset()
    with pytest.raises(DatasetError, match="There is no episode to store"):
        env.close()
    env.close()
    assert plant.closed == 2
    with RecordEpisodes(Plant(), "tests/plant/nothing-v0") as env:  # leaves nothing behind
        run(env, 3)


def test_mistakes_are_told_before_the_loop_begins():
    with pytest.raises(DatasetError, match="id of a dataset should be like 'mine/plant/first-v0'"):
        RecordEpisodes(Plant(), "no version")
    with pytest.raises(DatasetError, match="action space should be a one-dimensional Box"):
        RecordEpisodes(gym.make("CartPole-v1"), "tests/plant/mistake-v0")
    with pytest.raises(TypeError, match="not JSON serializable"):
        RecordEpisodes(Plant(), "tests/plant/mistake-v0", metadata={"model": object()})
    with pytest.raises(ValueError, match=r"cost_discount should be in \(0, 1\]"):
        RecordEpisodes(Plant(), "tests/plant/mistake-v0", cost_discount=0.0)
    with RecordEpisodes(Plant(), "tests/plant/mistake-v0") as env:
        with pytest.raises(DatasetError, match="call reset first"):
            env.step(ACTION)
        run(env, 3)
        with pytest.raises(DatasetError, match="call reset first"):
            env.step(ACTION)


def test_labels_of_episodes_are_stored(tiny_dataset):
    episode = {
        "observations": np.zeros((3, 1), np.float32),
        "actions": np.zeros((2, 1), np.float32),
        "rewards": np.ones(2),
        "costs": np.array([1.0, 2.0]),
        "terminations": np.array([False, True]),
        "truncations": np.zeros(2, np.bool_),
        "policy": np.array(4),
        "seed": np.array(2**32 - 1),
    }
    box = gym.spaces.Box(-1, 1, (1,))
    write_dataset(
        "tests/plant/labels-v0", None, [episode], {"cost_discount": 0.5}, spaces=(box, box)
    )
    assert labels("tests/plant/labels-v0", "policy") == [4]
    assert labels("tests/plant/labels-v0", "seed") == [2**32 - 1]
    assert labels("tests/plant/labels-v0", "discounted_cost") == [2.0]
