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
        """Returns actions `(n, A)` for `(n, O)`, `(n,)` and `(n,)`."""
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


class Log(Protocol):
    """What a rollout writes its actions to, and takes those from that were written before."""

    def replay(self) -> npt.NDArray[Any] | None:
        """Returns the next logged actions `(n, A)`, or None where the log ends."""
        ...

    def append(self, actions: npt.NDArray[Any]) -> None:
        """Writes down actions `(n, A)` that the policy chose."""
        ...


def rollout(
    policy: Policy,
    env_id: str,
    budgets: npt.ArrayLike,
    seeds: Sequence[int],
    *,
    cost_discount: float | None = None,
    budget_changes: Mapping[int, npt.ArrayLike] | None = None,
    log: Log | None = None,
    progress: Progress | None = None,
    **env_kwargs: Any,
) -> Rollout:
    """Runs one episode per budget, all in lockstep.

    Args:
        policy: Called once per step with all observations, budgets and steps left.
        env_id: A task with a time limit.
        budgets: `(n,)`, in cost units.
        seeds: n seeds of the start states.
        cost_discount: gamma_c of the budget recursion. None: the task's.
        budget_changes: Step -> new remaining budget (a number or `(n,)`), set before that step.
        log: Steps that are in it already are taken from it, without asking the policy.
        progress: Called as `progress(done, total)` with steps.
        **env_kwargs: Passed to `gym.make_vec`.

    Raises:
        ValueError: The task has no time limit, or reports no cost.
    """
    starts = np.asarray(budgets, np.float64)
    worlds = gym.make_vec(env_id, num_envs=len(starts), vectorization_mode="sync", **env_kwargs)
    rewards, costs, left = [], [], []
    active, num_steps = np.ones(len(starts), np.bool_), np.zeros(len(starts), np.int64)
    try:
        envs = VectorBudgetObservation(worlds, starts, cost_discount=cost_discount)
        total = envs.spec and envs.spec.max_episode_steps
        if not total:
            raise ValueError(f"{env_id} has no time limit: give max_episode_steps.")
        obs, info = envs.reset(seed=list(seeds))
        for step in range(total):
            if budget_changes and step in budget_changes:
                envs.set_remaining_budget(budget_changes[step])
            left.append(np.where(active, envs.remaining_budget, 0.0))
            actions = log.replay() if log is not None else None
            if actions is None:
                told = (obs["observation"], envs.remaining_budget, info["remaining_steps"])
                actions = policy(*told)
                if log is not None:
                    log.append(actions)
            obs, reward, terminated, truncated, info = envs.step(actions)
            rewards.append(np.where(active, reward, 0.0))
            costs.append(np.where(active, info["cost"], 0.0))
            num_steps += active
            active &= ~(terminated | truncated)
            if progress is not None:
                progress(step + 1 if active.any() else total, total)
            if not active.any():
                break
    finally:
        worlds.close()
    return Rollout(np.stack(rewards), np.stack(costs), np.stack(left), num_steps)


def start_seed(seed: int, episode: int) -> int:
    """Returns the seed of an evaluated episode's start state, which no collection takes."""
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
        """Returns actions `(n, A)` of this step.

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
