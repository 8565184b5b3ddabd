import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC

from safe_diffusion_agent.data import levels, sac
from safe_diffusion_agent.data.collection import collect
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.evaluation.rollout import start_seed
from safe_diffusion_agent.evaluation.tables import read_episodes
from safe_diffusion_agent.experiments import rule as rule_module
from safe_diffusion_agent.experiments.rule import Rule, WaitAndAct


def ones(observations):
    return np.ones((len(observations), 1))


@pytest.mark.parametrize("waits", [True, False])
def test_each_environment_changes_once(waits):
    """Remaining budgets cross the threshold of 5 at different times, and one crosses back."""
    policy = WaitAndAct(ones, 5.0, waits=waits)
    budgets = [[4, 7], [6, 8], [7, 9]] if waits else [[9, 8], [8, 5], [5, 9]]
    expected = [[0, 1], [1, 1], [1, 1]] if waits else [[1, 1], [1, 0], [0, 0]]
    observations = np.zeros((2, 3))
    actions = [policy(observations, np.array(row, float), np.full(2, 9)) for row in budgets]
    np.testing.assert_array_equal(np.array(actions)[..., 0], expected)


def test_rule_keeps_back_what_its_expert_needs_to_stop(tmp_path, monkeypatch):
    """Without bounds on its budget, the rule is the expert; with none, it hangs still."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -1000.0)
    monkeypatch.setattr(levels, "MEASURED_EPISODES", 2)
    monkeypatch.setattr(rule_module, "MEASURED_EPISODES", 3)
    monkeypatch.setattr(sac, "SNAPSHOT_INTERVAL", 200)
    env = gym.make("safe/Pendulum-v0")
    expert = SAC("MlpPolicy", env, buffer_size=1, policy_kwargs={"net_arch": [8]}, seed=0)
    expert.save("sac.zip")
    config = CollectConfig(
        env_id="safe/Pendulum-v0",
        quality="medium-expert",
        num_steps=400,
        train_steps=400,
        expert="sac.zip",
    )
    name = collect(config, dataset_id="tests/rule/medium-expert-v0", state_dir=tmp_path / "state")
    evaluation = {"seed": 5, "num_episodes": 2, "ratios": (1e-9, 1e6)}
    rule = Rule(dataset=config, dataset_id=name, evaluation=evaluation, folder=tmp_path / "rule")
    assert rule.label == "the expert, then stop"
    assert not rule.is_done()
    rule.run()
    assert rule.is_done()
    episodes = read_episodes(tmp_path / "rule" / "episodes.csv")
    assert rule.evaluated("a task").episodes == episodes
    assert [e.over_budget for e in episodes if e.ratio == 1e6] == [False, False]
    by_hand = []
    for episode in episodes:
        env = gym.make("safe/Pendulum-v0")
        obs, _ = env.reset(seed=start_seed(5, episode.episode))
        total, done = 0.0, False
        while not done:
            action = expert.predict(obs, deterministic=True)[0] * (episode.ratio > 1)
            obs, reward, _, done, _ = env.step(action)
            total += float(reward)
        by_hand.append(total)
    np.testing.assert_allclose([e.episode_return for e in episodes], by_hand, rtol=1e-6)
