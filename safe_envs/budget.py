"""The remaining budget: its arithmetic, and the wrapper that keeps it and shows it to the agent.

An episode starts with a budget b. What is left of it at step t is z_t (Lin et al. 2023, Alg. 1):

    z_0 = b,    z_{t+1} = (z_t - c_t) / gamma_c

where c_t is the cost of step t and gamma_c the discount of costs. The episode keeps its budget
exactly if z never ends below zero.
"""

from typing import Any, SupportsFloat, TypeVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from safe_envs.cost_signal import cost_of
from safe_envs.registration import TASKS, costs_may_be_negative, time_limit
from safe_envs.sources import Source, check_amount, draw, generator

RNG_STREAM = 1

Amount = TypeVar("Amount", float, npt.NDArray[np.float64])


def next_remaining_budget(
    remaining_budget: Amount, cost: Amount, cost_discount: float = 1.0
) -> Amount:
    """Returns what is left of a budget after one more step: (z - c) / gamma_c (Alg. 1, line 15).

    Args:
        remaining_budget: z_t, a number or a float64 array of any shape, in cost units; negative
            when overspent, `inf` without a constraint.
        cost: c_t, likewise.
        cost_discount: gamma_c in (0, 1].

    Returns:
        z_{t+1}, a number or an array.
    """
    return (remaining_budget - cost) / cost_discount


def resolve_cost_discount(spec: Any, cost_discount: float | None) -> float:
    """Returns gamma_c as given; else the registered task's (`TASKS`), known by its spec; else 1.

    Raises:
        ValueError: It is outside (0, 1].
    """
    if cost_discount is None:
        known = spec is not None and spec.id in TASKS
        return TASKS[spec.id].cost_discount if known else 1.0
    if not 0.0 < cost_discount <= 1.0:
        raise ValueError(f"cost_discount should be in (0, 1]. Received {cost_discount}.")
    return cost_discount


def budget_space(
    observation_space: gym.Space[Any], flat: bool, remaining_steps: bool
) -> gym.spaces.Dict | gym.spaces.Box:
    """Returns the space of an observation with its remaining budget (see `BudgetObservation`).

    Raises:
        TypeError: `flat` on something that is not a one-dimensional Box.
        ValueError: `flat` together with `remaining_steps`.
    """
    if flat:
        if remaining_steps:
            raise ValueError("remaining_steps is only observed in a Dict: use flat=False with it.")
        if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 1:
            raise TypeError(
                "flat=True needs a one-dimensional Box observation space. "
                f"Received {observation_space}; use flat=False."
            )
        return gym.spaces.Box(
            np.append(observation_space.low, -np.inf).astype(observation_space.dtype),
            np.append(observation_space.high, np.inf).astype(observation_space.dtype),
            dtype=observation_space.dtype.type,
        )
    spaces: dict[str, gym.Space[Any]] = {
        "observation": observation_space,
        "remaining_budget": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
    }
    if remaining_steps:
        spaces["remaining_steps"] = gym.spaces.Box(0.0, np.inf, (1,), np.float32)
    return gym.spaces.Dict(spaces)


class BudgetObservation(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Keeps the remaining budget of the episode and shows it to the agent.

    The observation becomes `{"observation": ..., "remaining_budget": (1,) float32}`, and the info
    of `reset` and `step` gets `"remaining_budget"` (float) and, where the episode has a time limit,
    `"remaining_steps"` (int, including the next one). The wrapped environment must report
    `info["cost"]`; `CostSignal` adds it.

    Args:
        env: Environment with `info["cost"]`.
        budget: Budget of an episode in cost units (not normalized): a number >= 0 or `math.inf`, a
            pair `(low, high)` to draw uniformly from at every reset, or a function of a
            `numpy.random.Generator`. None if every reset gives one in its options.
        cost_discount: gamma_c in (0, 1]. None takes the task's own (`TASKS`), or 1.
        flat: Appends the remaining budget to a one-dimensional Box instead of building a Dict.
        remaining_steps: Adds `"remaining_steps"` to the Dict, for agents that plan up to the end of
            the episode.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import BudgetObservation
        >>> env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=30.0)
        >>> obs, info = env.reset(options={"budget": 12.5})  # a budget for this episode only
        >>> info["remaining_budget"]
        12.5
        >>> env.set_remaining_budget(5.0)  # counts from the next step on
        >>> obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> info["remaining_budget"] == 5.0 - info["cost"]
        True
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        budget: Source | None = None,
        *,
        cost_discount: float | None = None,
        flat: bool = False,
        remaining_steps: bool = False,
    ):
        RecordConstructorArgs.__init__(
            self,
            budget=budget,
            cost_discount=cost_discount,
            flat=flat,
            remaining_steps=remaining_steps,
        )
        gym.Wrapper.__init__(self, env)
        self._budget, self._signed = budget, costs_may_be_negative(env.spec)
        if budget is not None:
            draw(budget, np.random.default_rng(0), "budget", signed=self._signed)
        self._max_episode_steps = time_limit(env.spec)
        if remaining_steps and self._max_episode_steps is None:
            raise ValueError(
                "remaining_steps needs an episode with a time limit: "
                "give max_episode_steps to gym.make."
            )
        self.cost_discount = resolve_cost_discount(env.spec, cost_discount)
        self._flat = flat
        self._observes_steps = remaining_steps
        self.observation_space = budget_space(env.observation_space, flat, remaining_steps)
        self._rng = np.random.default_rng()
        self._remaining_budget: float | None = None
        self._num_steps = 0

    @property
    def remaining_budget(self) -> float:
        """z_t as of now, in cost units; negative when overspent.

        Raises:
            gymnasium.error.ResetNeeded: No episode has been started.
        """
        if self._remaining_budget is None:
            raise gym.error.ResetNeeded("There is no budget before the first reset().")
        return self._remaining_budget

    def set_remaining_budget(self, remaining_budget: float) -> None:
        """Raises or cuts what is left of the budget; the next step is charged to the new one.

        Args:
            remaining_budget: The new z_t, zero or more, or `math.inf`; negative where costs may be.

        Raises:
            ValueError: It is NaN or negative.
            gymnasium.error.ResetNeeded: No episode has been started.
        """
        checked = float(check_amount(remaining_budget, "remaining budget", signed=self._signed))
        if self._remaining_budget is None:
            raise gym.error.ResetNeeded("Call reset() before set_remaining_budget().")
        self._remaining_budget = checked

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode with `options["budget"]`, or with the budget given at construction.

        Raises:
            ValueError: There is no budget, or it is NaN or negative.
        """
        if seed is not None:
            self._rng = generator(seed, RNG_STREAM)
        options = dict(options or {})
        source = options.pop("budget", self._budget)
        if source is None:
            raise ValueError(
                "This episode has no budget: give one to BudgetObservation(env, budget=...) "
                'or to reset(options={"budget": ...}).'
            )
        budget = draw(source, self._rng, "budget", signed=self._signed)
        observation, info = self.env.reset(seed=seed, options=options or None)
        self._remaining_budget = budget
        self._num_steps = 0
        return self._show(observation, info), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment and charges `info["cost"]` to the budget.

        Raises:
            ValueError: The environment reports no cost.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._remaining_budget = next_remaining_budget(
            self.remaining_budget, float(cost_of(info)), self.cost_discount
        )
        self._num_steps += 1
        shown = self._show(observation, info)
        return shown, reward, terminated, truncated, info

    def _show(self, observation: Any, info: dict[str, Any]) -> Any:
        """Adds the remaining budget to the info; returns the observation with it."""
        remaining_steps: int | None = None
        info["remaining_budget"] = self._remaining_budget
        if self._max_episode_steps is not None:
            remaining_steps = self._max_episode_steps - self._num_steps
            info["remaining_steps"] = remaining_steps
        if self._flat:
            flat = np.empty(observation.size + 1, observation.dtype)
            flat[:-1], flat[-1] = observation, self._remaining_budget
            return flat
        column = np.empty(1, np.float32)  # twice as fast as np.array([number])
        column[0] = self._remaining_budget
        shown = {"observation": observation, "remaining_budget": column}
        if self._observes_steps:
            shown["remaining_steps"] = np.array([remaining_steps], np.float32)
        return shown
