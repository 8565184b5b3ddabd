import gymnasium as gym
import numpy as np
import pytest
from costly_env import CostlyEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics
from stable_baselines3.common.monitor import Monitor

from safe_envs import BudgetObservation, RecordEpisodeCost, VectorRecordEpisodeCost


def run(env, costs):
    env.reset()
    infos = [env.step(np.array([cost], np.float32))[4] for cost in costs]
    assert all("episode" not in info for info in infos[:-1])
    return infos[-1]["episode"]


@pytest.mark.parametrize("terminates", [False, True])
def test_last_info_has_the_sum_of_the_costs(terminates):
    env = RecordEpisodeCost(CostlyEnv(length=3, terminates=terminates))
    for costs in ([1.0, 2.5, 4.0], [0.0, 0.0, 0.5]):
        statistics = run(env, costs)
        assert statistics["c"] == sum(costs)
        assert (statistics["r"], statistics["l"]) == (0.0, 3)
        assert 0.0 <= statistics["t"] < 10.0


@pytest.mark.parametrize("inner", [RecordEpisodeStatistics, Monitor])
def test_adds_to_what_other_wrappers_record(inner):
    env = RecordEpisodeCost(inner(BudgetObservation(CostlyEnv(length=3), budget=10.0)))
    statistics = run(env, [1.0, 2.0, 3.0])
    assert statistics["c"] == 6.0
    assert {key: statistics[key] for key in ("r", "l")} == {"r": 0.0, "l": 3}
    assert type(statistics["t"]) is float


def test_gymnasiums_recorder_can_be_outside_under_another_key():
    env = RecordEpisodeStatistics(CostlyEnv(length=1), stats_key="statistics")
    env = RecordEpisodeStatistics(RecordEpisodeCost(env), stats_key="outside")
    env.reset()
    *_, info = env.step(np.array([2.0], np.float32))
    assert info["episode"]["c"] == 2.0 and info["outside"]["l"] == 1


def test_without_a_cost_it_says_what_adds_one():
    env = RecordEpisodeCost(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="CostSignal"):
        env.step(env.action_space.sample())


@pytest.mark.parametrize("gymnasiums", [False, True])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_twin_equals_single_wrappers_under_every_autoreset_mode(mode, gymnasiums):
    """Adds up the costs of each episode by hand, and compares when it ends."""
    lengths = [3, 5, 4]
    envs = SyncVectorEnv(
        [lambda length=length: CostlyEnv(length) for length in lengths], autoreset_mode=mode
    )
    if gymnasiums:
        envs = VectorRecordEpisodeStatistics(envs)
    envs = VectorRecordEpisodeCost(envs)
    envs.reset(seed=0)
    rng, done, sums = np.random.default_rng(0), np.zeros(3, bool), np.zeros(3)
    num_ended = 0
    for _ in range(23):
        actions = rng.uniform(0.0, 3.0, (3, 1)).astype(np.float32)
        if mode == AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            sums[done] = 0.0
        only_resets = done if mode == AutoresetMode.NEXT_STEP else np.zeros(3, bool)
        *_, terminated, truncated, info = envs.step(actions)
        sums = np.where(only_resets, 0.0, sums + actions[:, 0])
        done = terminated | truncated
        assert ("episode" in info) == done.any()
        if done.any():
            np.testing.assert_array_equal(info["_episode"], done)
            np.testing.assert_allclose(info["episode"]["c"], np.where(done, sums, 0.0))
            if not (gymnasiums and mode == AutoresetMode.DISABLED):  # Gymnasium loses count there
                np.testing.assert_array_equal(info["episode"]["l"], np.where(done, lengths, 0))
            num_ended += done.sum()
        if mode == AutoresetMode.SAME_STEP:
            sums[done] = 0.0
    assert num_ended > 9


def test_single_wrapper_works_inside_a_vector_environment():
    envs = SyncVectorEnv([lambda: RecordEpisodeCost(CostlyEnv(length=2))] * 2)
    envs.reset()
    envs.step(np.ones((2, 1), np.float32))
    *_, info = envs.step(np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(info["episode"]["c"], [2.0, 2.0])
