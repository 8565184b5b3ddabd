"""Episodes in lockstep: one environment per budget, and one call of the policy per step for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from safe_envs import VectorBudgetObservation

Progress = Callable[..., None]
FloatArray = npt.NDArray[np.float64]


class Policy(Protocol):
    """What can be evaluated: `TrebiAgent.act`, or anything with its arguments."""

    def __call__(
        self, obs: Any, remaining_budget: FloatArray, remaining_steps: npt.NDArray[np.int64], /
    ) -> npt.NDArray[Any]:
        """Actions `(n, A)` for `(n, O)`, `(n,)` and `(n,)`."""
        ...


@dataclass(frozen=True)
class Rollout:
    """Episodes step by step, each `(L, n)`; after an episode's end its entries are 0.

    Attributes:
        rewards: Rewards.
        costs: Costs.
        remaining_budgets: z_t before each step.
        num_steps: `(n,)`, lengths.
    """

    rewards: FloatArray
    costs: FloatArray
    remaining_budgets: FloatArray
    num_steps: npt.NDArray[np.int64]


def rollout(
    policy: Policy,
    env_id: str,
    budgets: npt.ArrayLike,
    seeds: Sequence[int],
    *,
    cost_discount: float | None = None,
    budget_changes: Mapping[int, npt.ArrayLike] | None = None,
    progress: Progress | None = None,
    **env_kwargs: Any,
) -> Rollout:
    """One episode per budget, all in lockstep.

    Args:
        policy: Called once per step with all observations, budgets and steps left.
        env_id: A task with a time limit.
        budgets: `(n,)`, in cost units.
        seeds: n seeds of the start states.
        cost_discount: gamma_c of the budget recursion. None: the task's.
        budget_changes: Step -> new remaining budget (a number or `(n,)`), set before that step.
        progress: Called as `progress(done, total)` with steps.
        **env_kwargs: Passed to `gym.make_vec`.
    """
    budgets = np.asarray(budgets, np.float64)
    envs = VectorBudgetObservation(
        gym.make_vec(env_id, num_envs=len(budgets), vectorization_mode="sync", **env_kwargs),
        budgets,
        cost_discount=cost_discount,
    )
    try:
        return _run(policy, envs, list(seeds), budget_changes or {}, progress)
    finally:
        envs.close()


def _run(
    policy: Policy,
    envs: VectorBudgetObservation,
    seeds: list[int],
    budget_changes: Mapping[int, npt.ArrayLike],
    progress: Progress | None,
) -> Rollout:
    assert envs.spec is not None and envs.spec.max_episode_steps is not None
    total = envs.spec.max_episode_steps
    obs, info = envs.reset(seed=seeds)
    rewards, costs, budgets = [], [], []
    active = np.ones(envs.num_envs, np.bool_)
    num_steps = np.zeros(envs.num_envs, np.int64)
    for step in range(total):
        if step in budget_changes:
            envs.set_remaining_budget(budget_changes[step])
        remaining_budget = envs.remaining_budget
        action = policy(obs["observation"], remaining_budget, info["remaining_steps"])
        obs, reward, terminated, truncated, info = envs.step(action)
        rewards.append(np.where(active, reward, 0.0))
        costs.append(np.where(active, info["cost"], 0.0))
        budgets.append(np.where(active, remaining_budget, 0.0))
        num_steps += active
        active &= ~(terminated | truncated)
        if progress is not None:
            progress(step + 1, total)
        if not active.any():
            break
    if progress is not None:
        progress(total, total)
    return Rollout(np.stack(rewards), np.stack(costs), np.stack(budgets), num_steps)


def start_seed(seed: int, episode: int) -> int:
    """Seed of the start state of one evaluated episode; not one that data were collected with."""
    return int(np.random.SeedSequence([seed, episode, 1]).generate_state(1)[0])


class OpenLoop:
    """Replans every few steps and carries out the plan's actions in between.

    An agent remembers nothing of an episode, so that a slower control frequency (Lin et al. 2023,
    App. E, Fig. 7) belongs to whoever runs the episodes: this is a policy with a memory.

    Args:
        plan: Such as `TrebiAgent.plan`: maps observations `(n, O)`, remaining budgets and steps
            `(n,)` to something with `actions`, `(n, H, A)`.
        interval: Steps per plan, at most H.

    The rows of all calls should be the same episodes, one step further each time.
    """

    def __init__(self, plan: Callable[..., Any], interval: int):
        self._plan = plan
        self._interval = interval
        self._step = 0
        self._actions: Any = None

    def __call__(self, obs: Any, remaining_budget: Any, remaining_steps: Any) -> npt.NDArray[Any]:
        """Actions `(n, A)` of this step.

        Raises:
            ValueError: The plans are shorter than the interval.
        """
        since_plan = self._step % self._interval
        if since_plan == 0:
            self._actions = self._plan(obs, remaining_budget, remaining_steps).actions
            horizon = self._actions.shape[1]
            if horizon < self._interval:
                raise ValueError(
                    f"A control interval should be at most the horizon of the plans, {horizon}. "
                    f"Received {self._interval}."
                )
        self._step += 1
        actions: npt.NDArray[Any] = self._actions[:, since_plan]
        return actions
