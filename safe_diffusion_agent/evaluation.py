"""The paper's evaluation: many episodes under each of several budgets (Lin et al. 2023, Sec. 5.1).

All episodes of all budgets advance together, so that every environment step costs one batched plan.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.statistics import BoxStatistics, wilson_interval
from safe_envs import VectorBudgetObservation, task_spec

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the paper's evaluation

Progress = Callable[..., None]
FloatArray = npt.NDArray[np.float64]


class Policy(Protocol):
    """What can be evaluated: `TrebiAgent.act`, or anything with its arguments."""

    def __call__(
        self, obs: Any, remaining_budget: FloatArray, remaining_steps: npt.NDArray[np.int64], /
    ) -> npt.NDArray[Any]:
        """Actions `(n, A)` for `(n, O)`, `(n,)` and `(n,)`."""
        ...


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What to evaluate.

    Attributes:
        ratios: Budgets as shares of the maximum budget.
        num_episodes: Episodes per budget (the paper: 60).
        seed: Episode k starts in the same state under every budget, given by `(seed, k)`.
        max_budget: In cost units. None takes the task's (`TASKS`).
        random_ratios: Every episode has a budget of its own, a share of the maximum drawn uniformly
            from (0, 1], instead of `ratios` (Lin et al. 2023, App. E: 100 of them).
        control_interval: Steps between two plans; more than one needs an agent that plans.
    """

    ratios: tuple[float, ...] = RATIOS
    num_episodes: int = 20
    seed: int = 0
    max_budget: float | None = None
    random_ratios: bool = False
    control_interval: int = 1

    def __post_init__(self) -> None:
        if not self.ratios or not all(ratio > 0 for ratio in self.ratios):
            raise ValueError(f"ratios should be positive numbers. Received {self.ratios}.")
        for name in ("num_episodes", "control_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be positive. Received {getattr(self, name)}.")

    @property
    def episodes(self) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Ratio and index of every episode, `(n,)` each."""
        indices = np.arange(self.num_episodes)
        if self.random_ratios:
            return 1.0 - np.random.default_rng(self.seed).random(self.num_episodes), indices
        return np.repeat(self.ratios, self.num_episodes), np.tile(indices, len(self.ratios))


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One evaluated episode.

    Attributes:
        ratio: Budget as a share of the maximum budget.
        budget: In cost units.
        episode: Index k of its start state.
        episode_return: Undiscounted.
        cost: Discounted by the task's gamma_c (1 for most), as is the budget.
        undiscounted_cost: Sum of the costs.
        normalized_cost: `cost / budget`.
        over_budget: Whether the cost exceeds the budget.
        num_steps: Length.
    """

    ratio: float
    budget: float
    episode: int
    episode_return: float
    cost: float
    undiscounted_cost: float
    normalized_cost: float
    over_budget: bool
    num_steps: int


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


def evaluate_policy(
    policy: Policy,
    env_id: str,
    config: EvaluationConfig,
    *,
    cost_discount: float | None = None,
    budget_scale: float = 1.0,
    progress: Progress | None = None,
) -> list[EpisodeResult]:
    """Evaluates a policy under several budgets.

    Args:
        policy: See `rollout`.
        env_id: A task of `safe_envs`.
        config: What to evaluate.
        cost_discount: See `rollout`.
        budget_scale: Multiplies the budget that the policy is given, not the one it is judged by.
        progress: See `rollout`.

    Returns:
        One result per episode, budget after budget.
    """
    spec = task_spec(env_id)
    max_budget = spec.max_budget if config.max_budget is None else config.max_budget
    ratios, episodes = config.episodes
    budgets = ratios * max_budget
    run = rollout(
        policy,
        env_id,
        budgets * budget_scale,
        [start_seed(config.seed, int(episode)) for episode in episodes],
        cost_discount=cost_discount,
        progress=progress,
    )
    discounts = spec.cost_discount ** np.arange(len(run.costs))
    costs = discounts @ run.costs
    tolerance = 1e-9 * np.maximum(budgets, 1.0)
    return [
        EpisodeResult(
            ratio=float(ratios[i]),
            budget=float(budgets[i]),
            episode=int(episodes[i]),
            episode_return=float(run.rewards[:, i].sum()),
            cost=float(costs[i]),
            undiscounted_cost=float(run.costs[:, i].sum()),
            normalized_cost=float(costs[i] / budgets[i]),
            over_budget=bool(costs[i] > budgets[i] + tolerance[i]),
            num_steps=int(run.num_steps[i]),
        )
        for i in range(len(budgets))
    ]


def start_seed(seed: int, episode: int) -> int:
    """Seed of the start state of one evaluated episode; not one that data were collected with."""
    return int(np.random.SeedSequence([seed, episode, 1]).generate_state(1)[0])


def summarize(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """One row per budget: normalised cost (box statistics), share over budget, return.

    The row's `over_budget` has the number of episodes, the share and its 95 % Wilson interval.
    """
    rows = []
    for ratio in sorted({result.ratio for result in results}):
        chosen = [result for result in results if result.ratio == ratio]
        num_over = sum(result.over_budget for result in chosen)
        returns = np.array([result.episode_return for result in chosen])
        rows.append(
            {
                "ratio": ratio,
                "budget": chosen[0].budget,
                "num_episodes": len(chosen),
                "normalized_cost": asdict(
                    BoxStatistics.of([result.normalized_cost for result in chosen])
                ),
                "over_budget": {
                    "num_episodes": num_over,
                    "share": num_over / len(chosen),
                    "wilson_95": wilson_interval(num_over, len(chosen)),
                },
                "mean_return": float(returns.mean()),
                "std_return": float(returns.std()),
            }
        )
    return rows


def to_csv(results: Sequence[EpisodeResult]) -> str:
    """The results as a table, one episode per line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpisodeResult)])
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    return text.getvalue()
