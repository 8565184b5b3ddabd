import gymnasium as gym
import numpy as np

from safe_diffusion_agent.evaluation.optimum import best_returns


def test_optimum_is_between_doing_nothing_and_the_largest_reward():
    best = best_returns("safe/Pendulum-v0", [0.0, 12.0, 60.0, 1000.0])
    assert (np.diff(best) >= 0).all() and best[-1] <= 200.0
    env = gym.make("safe/Pendulum-v0")
    idle = []
    for seed in range(10):
        env.reset(seed=seed)
        idle.append(sum(env.step(np.zeros(1, np.float32))[1] for _ in range(200)))
    assert np.mean(idle) < best[0]


def test_other_tasks_have_no_known_optimum():
    assert best_returns("safe/Hopper-v0", [1.0]) is None
