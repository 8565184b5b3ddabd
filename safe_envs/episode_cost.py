"""The cost of a whole episode in `info["episode"]["c"]`, beside Gymnasium's "r", "l" and "t"."""

import time
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from safe_envs.cost_signal import cost_of


class RecordEpisodeCost(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds the statistics of an episode to the info of its last step.

    `info["episode"]` gets `"c"` (sum of `info["cost"]`, not discounted), and, unless a wrapper
    inside has put them there, `"r"` (return), `"l"` (length) and `"t"` (seconds) as Gymnasium's
    `RecordEpisodeStatistics` and Stable-Baselines3's `Monitor` do. Both of these can be used
    together with this one if it is outside of them, or has a key of its own.

    Args:
        env: Environment with `info["cost"]` and a time limit, such as `gym.make` gives.
        stats_key: Key of the info.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import RecordEpisodeCost
        >>> env = RecordEpisodeCost(gym.make("safe/Pendulum-v0", max_episode_steps=1))
        >>> _ = env.reset(seed=0)
        >>> *_, info = env.step(env.action_space.sample())
        >>> info["episode"]["l"], info["episode"]["c"] == info["cost"]
        (1, True)
    """

    def __init__(self, env: gym.Env[Any, Any], *, stats_key: str = "episode"):
        RecordConstructorArgs.__init__(self, stats_key=stats_key)
        gym.Wrapper.__init__(self, env)
        self._stats_key = stats_key
        self._cost = self._return = self._start = 0.0
        self._length = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and the sums."""
        self._cost = self._return = 0.0
        self._length = 0
        self._start = time.perf_counter()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment; the last step's info has the statistics.

        Raises:
            ValueError: The environment reports no cost.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._cost += cost_of(info)
        self._return += float(reward)
        self._length += 1
        if terminated or truncated:
            seconds = round(time.perf_counter() - self._start, 6)
            statistics = {"r": self._return, "l": self._length, "t": seconds}
            statistics |= info.get(self._stats_key, {})
            info = {**info, self._stats_key: statistics | {"c": self._cost}}
        return observation, reward, terminated, truncated, info


class VectorRecordEpisodeCost(VectorWrapper[Any, Any, Any, Any, Any]):
    """`RecordEpisodeCost` for `gym.make_vec`, under every autoreset mode.

    `info["episode"]` has arrays `(num_envs,)`, and `info["_episode"]` says whose episode ended at
    this step. Gymnasium's vector `RecordEpisodeStatistics` can be inside of it.

    Args:
        env: Vector environment whose info has `"cost"`.
        stats_key: Key of the info.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], *, stats_key: str = "episode"):
        super().__init__(env)
        self._stats_key = stats_key
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._resets_next = np.zeros(self.num_envs, np.bool_)
        self._costs = np.zeros(self.num_envs)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._starts = np.zeros(self.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environments, or those of `options["reset_mask"]`, and their sums."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        self._restart(mask)
        self._resets_next[mask] = False
        return self.env.reset(seed=seed, options=dict(options) if options else None)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps every environment; a step that only resets is not counted.

        Raises:
            ValueError: The environments report no cost.
        """
        observation, reward, terminated, truncated, info = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        costs = cost_of(info)
        if self._mode == AutoresetMode.SAME_STEP and done.any():
            costs = np.where(done, cost_of(info["final_info"]), costs)
        self._restart(self._resets_next)
        counted = ~self._resets_next
        self._costs += np.where(counted, costs, 0.0)
        self._returns += np.where(counted, reward, 0.0)
        self._lengths += counted
        if self._mode == AutoresetMode.NEXT_STEP:
            self._resets_next = done
        if done.any():
            info = {**info, self._stats_key: self._statistics(info, done)}
            info[f"_{self._stats_key}"] = done
        if self._mode == AutoresetMode.SAME_STEP:
            self._restart(done)
        return observation, reward, terminated, truncated, info

    def _statistics(self, info: dict[str, Any], done: Any) -> dict[str, Any]:
        seconds = np.round(time.perf_counter() - self._starts, 6)
        values = {"r": self._returns, "l": self._lengths, "t": seconds}
        shown = {key: np.where(done, value, 0) for key, value in values.items()}
        costs = {"c": np.where(done, self._costs, 0.0)}
        return {**shown, **info.get(self._stats_key, {}), **costs}

    def _restart(self, mask: Any) -> None:
        for sums in (self._costs, self._returns, self._lengths):
            sums[mask] = 0
        self._starts[mask] = time.perf_counter()
