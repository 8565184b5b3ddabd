"""Wrappers that put costs into `info["cost"]`: of every step, and of an episode that terminates."""

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import RecordConstructorArgs

from safe_envs.costs import CostFunction


class CostSignal(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `info["cost"]`, the cost of the step just taken, computed by a pure cost function.

    `reset` gives `info["cost"] = 0.0`, so that the info has the same keys from the first
    observation on (Minari's collector and vector environments need that). A cost that the wrapped
    environment reports itself is replaced.

    Args:
        env: The environment to judge.
        cost_fn: A function as described in `safe_envs.costs`, or its name as `"module:function"`.
            With a name, the environment's spec stays serialisable (Minari stores it).
        **cost_kwargs: Keyword arguments passed to the cost function at every step.

    Attributes:
        cost_fn: The function.
        cost_kwargs: Its keyword arguments.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import CostSignal
        >>> env = CostSignal(gym.make("Pendulum-v1"), "safe_envs.costs:pendulum_cost")
        >>> _ = env.reset(seed=0)
        >>> *_, info = env.step(env.action_space.sample())
        >>> 0.0 <= info["cost"] <= 1.0
        True
    """

    def __init__(self, env: gym.Env[Any, Any], cost_fn: CostFunction | str, **cost_kwargs: Any):
        RecordConstructorArgs.__init__(self, cost_fn=cost_fn, **cost_kwargs)
        gym.Wrapper.__init__(self, env)
        self.cost_fn: CostFunction = (
            load_env_creator(cost_fn) if isinstance(cost_fn, str) else cost_fn
        )
        self.cost_kwargs = cost_kwargs
        self._observation: Any = None

    @property
    def cost_function(self) -> str:
        """Name of the cost function, as `"module:function"`."""
        return f"{self.cost_fn.__module__}:{getattr(self.cost_fn, '__qualname__', '?')}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; the cost of a reset is 0."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, {**info, "cost": 0.0}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and adds the step's cost.

        Raises:
            ValueError: The cost function returned something that is not a finite number.
        """
        next_observation, reward, terminated, truncated, info = self.env.step(action)
        cost = float(
            self.cost_fn(self._observation, action, next_observation, info, **self.cost_kwargs)
        )
        if not math.isfinite(cost):
            raise ValueError(
                f"A cost should be a finite number. {self.cost_fn!r} returned {cost} "
                f"for the observation {self._observation!r} and the action {action!r}."
            )
        self._observation = next_observation
        info["cost"] = cost
        return next_observation, reward, terminated, truncated, info


class TerminalCost(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds a cost to the step that terminates an episode, such as a fall.

    Without it an episode that ends early costs less than one that goes on, and a policy that is
    short of budget ends it on purpose.

    Args:
        env: An environment with `info["cost"]`.
        cost: Of a termination, in cost units, zero or more. To reach the time limit is no
            termination.

    Raises:
        ValueError: `cost` is negative or not finite.
    """

    def __init__(self, env: gym.Env[Any, Any], cost: float):
        if not 0.0 <= cost < math.inf:
            raise ValueError(f"cost should be a number of 0 or more. Received {cost!r}.")
        RecordConstructorArgs.__init__(self, cost=cost)
        gym.Wrapper.__init__(self, env)
        self._cost = cost

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment; a termination costs more."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            info["cost"] = cost_of(info) + self._cost
        return observation, reward, terminated, truncated, info


def cost_of(info: Mapping[str, Any]) -> Any:
    """Returns `info["cost"]` of a step, for wrappers that need it.

    Raises:
        ValueError: There is none; the message says what adds it.
    """
    if "cost" not in info:
        raise ValueError('The environment reports no info["cost"]: wrap it in CostSignal first.')
    return info["cost"]
