"""An environment whose costs a test chooses."""

import gymnasium as gym
import numpy as np


class CostlyEnv(gym.Env):
    """Every step costs what its action says; an episode has `length` steps."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(0.0, 10.0, (1,), np.float32)

    def __init__(self, length=4, terminates=False):
        self.length, self.terminates, self.num_steps = length, terminates, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return np.zeros(2, np.float32), {"cost": 0.0}

    def step(self, action):
        self.num_steps += 1
        over = self.num_steps == self.length
        info = {"cost": float(action[0])}
        obs = np.full(2, self.num_steps / 10, np.float32)
        return obs, 0.0, over and self.terminates, over and not self.terminates, info
