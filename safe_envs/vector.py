"""`VectorBudgetObservation`: the remaining budgets of many environments at once.

It follows the autoreset mode of the vector environment (Gymnasium >= 1.0): a step that only resets
(NEXT_STEP) charges no cost; a step that ends an episode and starts the next (SAME_STEP) puts the
final budget into `final_info` and the new one into `info`; with DISABLED, the caller resets.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from safe_envs.budget import (
    RNG_STREAM,
    budget_space,
    next_remaining_budget,
    resolve_cost_discount,
)
from safe_envs.cost_signal import cost_of
from safe_envs.registration import costs_may_be_negative, time_limit
from safe_envs.sources import Source, check_amount, draw, generator

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class VectorBudgetObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """`BudgetObservation` for `gym.make_vec`: the same keys, with a leading axis of `num_envs`.

    Args:
        env: Vector environment whose info has `"cost"`.
        budget: As in `BudgetObservation` (drawn for each environment on its own), or an array
            `(num_envs,)` of one budget per environment.
        cost_discount: As in `BudgetObservation`.
        flat: As in `BudgetObservation`.
        remaining_steps: As in `BudgetObservation`.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import VectorBudgetObservation
        >>> envs = VectorBudgetObservation(gym.make_vec("safe/Pendulum-v0", num_envs=2), budget=9.0)
        >>> obs, info = envs.reset(seed=0, options={"budget": [12.5, 3.0]})
        >>> info["remaining_budget"]
        array([12.5,  3. ])
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        budget: Source | npt.ArrayLike | None = None,
        *,
        cost_discount: float | None = None,
        flat: bool = False,
        remaining_steps: bool = False,
    ):
        super().__init__(env)
        self._budget, self._signed = budget, costs_may_be_negative(env.spec)
        if budget is not None:
            self._draw(budget, np.random.default_rng(0))
        self._max_episode_steps = time_limit(env.spec)
        if remaining_steps and self._max_episode_steps is None:
            raise ValueError("remaining_steps needs an episode with a time limit.")
        self.cost_discount = resolve_cost_discount(env.spec, cost_discount)
        self._flat = flat
        self._observes_steps = remaining_steps
        self.single_observation_space = budget_space(
            env.single_observation_space, flat, remaining_steps
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._autoreset_mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._rng = np.random.default_rng()
        self._remaining_budget: FloatArray | None = None
        self._num_steps = np.zeros(self.num_envs, np.int64)
        self._previous_done = np.zeros(self.num_envs, np.bool_)

    @property
    def remaining_budget(self) -> FloatArray:
        """z_t of each environment, `(num_envs,)`, in cost units.

        Raises:
            gymnasium.error.ResetNeeded: No episode has been started.
        """
        if self._remaining_budget is None:
            raise gym.error.ResetNeeded("There is no budget before the first reset().")
        return self._remaining_budget.copy()

    def set_remaining_budget(
        self, remaining_budget: npt.ArrayLike, mask: npt.ArrayLike | None = None
    ) -> None:
        """Raises or cuts remaining budgets; the next step is charged to the new ones.

        Args:
            remaining_budget: One number, or `(num_envs,)`; zero or more, or `math.inf`.
            mask: `(num_envs,)` booleans, the environments to change. None changes all.

        Raises:
            ValueError: A budget is NaN or negative.
            gymnasium.error.ResetNeeded: No episode has been started.
        """
        checked = np.broadcast_to(
            check_amount(remaining_budget, "remaining budget", signed=self._signed),
            (self.num_envs,),
        )
        changed = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        self._remaining_budget = np.where(changed, checked, self.remaining_budget)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes with `options["budget"]` (one number or one per environment).

        With `options["reset_mask"]`, only the masked environments start anew.

        Raises:
            ValueError: There is no budget, or one is NaN or negative.
        """
        if seed is not None:
            self._rng = generator(seed, RNG_STREAM)
        options = dict(options or {})
        source = options.pop("budget", self._budget)
        mask = options.get("reset_mask", np.ones(self.num_envs, np.bool_))
        if source is None:
            raise ValueError(
                "These episodes have no budget: give one to VectorBudgetObservation(env, "
                'budget=...) or to reset(options={"budget": ...}).'
            )
        drawn = self._draw(source, self._rng)
        observation, info = self.env.reset(seed=seed, options=options or None)
        before = drawn if self._remaining_budget is None else self._remaining_budget
        self._remaining_budget = np.where(mask, drawn, before)
        self._num_steps[mask] = 0
        self._previous_done[mask] = False
        return self._observe(observation), {**info, **self._budget_info()}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps every environment and charges each its own cost.

        Raises:
            ValueError: The environments report no cost.
        """
        observation, reward, terminated, truncated, info = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        if self._autoreset_mode == AutoresetMode.NEXT_STEP:
            self._charge(info, charged=~self._previous_done)
            self._restart(self._previous_done)
        elif self._autoreset_mode == AutoresetMode.SAME_STEP:
            self._charge(info, charged=~done)
            if done.any():
                info = self._finish(info, done)
                self._restart(done)
        else:
            self._charge(info, charged=np.ones(self.num_envs, np.bool_))
        self._previous_done = done
        info = {**info, **self._budget_info()}
        return self._observe(observation), reward, terminated, truncated, info

    def _charge(self, info: dict[str, Any], charged: BoolArray) -> None:
        spent = next_remaining_budget(self.remaining_budget, cost_of(info), self.cost_discount)
        self._remaining_budget = np.where(charged, spent, self.remaining_budget)
        self._num_steps[charged] += 1

    def _finish(self, info: dict[str, Any], done: BoolArray) -> dict[str, Any]:
        """Charges the last step of the episodes that ended, and completes their final info."""
        final_info = dict(info["final_info"])
        self._charge(final_info, charged=done)
        final_info |= self._budget_info()
        final_obs = info["final_obs"].copy()
        for index in np.flatnonzero(done):
            batch_of_one = np.asarray(final_obs[index])[None]
            shown = self._observe(batch_of_one, slice(index, index + 1))
            final_obs[index] = (
                shown[0] if self._flat else {key: value[0] for key, value in shown.items()}
            )
        return {**info, "final_info": final_info, "final_obs": final_obs}

    def _restart(self, restarted: BoolArray) -> None:
        if not restarted.any():
            return
        if self._budget is None:
            raise ValueError(
                "An episode restarted by itself and has no budget: give one to "
                "VectorBudgetObservation(env, budget=...)."
            )
        drawn = self._draw(self._budget, self._rng)
        self._remaining_budget = np.where(restarted, drawn, self.remaining_budget)
        self._num_steps[restarted] = 0

    def _draw(self, source: Any, rng: np.random.Generator) -> FloatArray:
        """Returns one budget per environment, `(num_envs,)`."""
        if callable(source) or isinstance(source, tuple):
            return np.array(
                [draw(source, rng, "budget", signed=self._signed) for _ in range(self.num_envs)]
            )
        budgets = check_amount(source, "budget", signed=self._signed)
        if budgets.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"A budget should be one number or {self.num_envs} of them, one per environment. "
                f"Received shape {budgets.shape}."
            )
        return np.broadcast_to(budgets, (self.num_envs,)).copy()

    def _budget_info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"remaining_budget": self.remaining_budget}
        if self._max_episode_steps is not None:
            info["remaining_steps"] = self._max_episode_steps - self._num_steps
        return info

    def _observe(self, observation: Any, rows: slice = slice(None)) -> Any:
        budget_column = self.remaining_budget[rows, None]
        if self._flat:
            columns = np.concatenate([observation, budget_column], axis=1)
            return columns.astype(observation.dtype)
        shown = {"observation": observation, "remaining_budget": budget_column.astype(np.float32)}
        if self._observes_steps:
            steps = self._budget_info()["remaining_steps"]
            shown["remaining_steps"] = steps[rows, None].astype(np.float32)
        return shown
