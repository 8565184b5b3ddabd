"""`SpeedLimit`: a speed limit that may differ from episode to episode."""

import math
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from safe_envs.sources import Source, check_amount, draw, generator

RNG_STREAM = 2


class SpeedLimit(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `info["speed_limit"]`, which `costs.speed_limit_cost` judges by.

    Args:
        env: Any environment; its info should have `"x_velocity"`.
        speed_limit: Limit of an episode in m/s: a number >= 0 or `math.inf`, a pair `(low, high)`
            to draw uniformly from at every reset, or a function of a `numpy.random.Generator`.
        observe: Appends the limit to the observation, a one-dimensional Box.

    Raises:
        TypeError: `observe` on something that is not a one-dimensional Box.

    Example:
        >>> import gymnasium as gym
        >>> import safe_envs
        >>> env = gym.make("safe/Hopper-v0", cost="speed_limit", speed_limit=(0.5, 1.5))
        >>> obs, info = env.reset(seed=0, options={"speed_limit": 0.7})  # this episode only
        >>> env.get_wrapper_attr("set_speed_limit")(0.9)  # counts from the next step on
        >>> *_, info = env.step(env.action_space.sample())
        >>> info["speed_limit"]
        0.9
    """

    def __init__(self, env: gym.Env[Any, Any], speed_limit: Source, *, observe: bool = False):
        RecordConstructorArgs.__init__(self, speed_limit=speed_limit, observe=observe)
        gym.Wrapper.__init__(self, env)
        draw(speed_limit, np.random.default_rng(0), "speed limit")
        self._source = speed_limit
        self._observe_limit = observe
        self._rng = np.random.default_rng()
        self._limit = math.nan  # until the first reset
        if observe:
            space = env.observation_space
            if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
                raise TypeError(f"observe=True needs a one-dimensional Box. Received {space}.")
            self.observation_space = gym.spaces.Box(
                np.append(space.low, 0.0).astype(space.dtype),
                np.append(space.high, np.inf).astype(space.dtype),
                dtype=space.dtype.type,
            )

    def set_speed_limit(self, speed_limit: float) -> None:
        """Changes the limit in the middle of an episode; the next step is judged by the new one.

        Args:
            speed_limit: In m/s, zero or more, or `math.inf`.

        Raises:
            ValueError: It is NaN or negative.
            gymnasium.error.ResetNeeded: No episode has been started.
        """
        checked = float(check_amount(speed_limit, "speed limit"))
        if math.isnan(self._limit):
            raise gym.error.ResetNeeded("Call reset() before set_speed_limit().")
        self._limit = checked

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode with `options["speed_limit"]`, or with the limit of the constructor."""
        if seed is not None:
            self._rng = generator(seed, RNG_STREAM)
        options = dict(options or {})
        source = options.pop("speed_limit", self._source)
        self._limit = draw(source, self._rng, "speed limit")
        observation, info = self.env.reset(seed=seed, options=options or None)
        return self._observe(observation), {**info, "speed_limit": self._limit}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and adds the limit that held during the step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["speed_limit"] = self._limit
        return self._observe(observation), reward, terminated, truncated, info

    def _observe(self, observation: Any) -> Any:
        if not self._observe_limit:
            return observation
        return np.append(observation, self._limit).astype(observation.dtype)
