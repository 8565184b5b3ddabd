"""The paper's evaluation: many episodes under each of several budgets (Lin et al. 2023, Sec. 5.1).

All episodes of all budgets advance together, so that every environment step costs one batched plan.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.action_log import ActionLog
from safe_diffusion_agent.evaluation.rollout import (
    FloatArray,
    OpenLoop,
    Policy,
    Progress,
    rollout,
    start_seed,
)
from safe_diffusion_agent.evaluation.statistics import BoxStatistics, wilson_interval
from safe_envs import task_spec

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the paper's evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What to evaluate.

    Attributes:
        ratios: Budgets as shares of the maximum budget.
        num_episodes: Episodes per budget (the paper: 60).
        seed: Episode k starts in the same state under every budget, given by `(seed, k)`.
        max_budget: In cost units, > 0. None takes that of the agent's task.
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
        if len(set(self.ratios)) < len(self.ratios):
            raise ValueError(
                f"ratios should be different: each has the same episodes. Received {self.ratios}."
            )
        if self.max_budget is not None and not 0.0 < self.max_budget < math.inf:
            raise ValueError(
                "max_budget should be positive and finite, as budgets are shares of it. "
                f"Received {self.max_budget}."
            )
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


def evaluate_policy(
    policy: Policy,
    env_id: str,
    config: EvaluationConfig,
    *,
    cost_discount: float | None = None,
    judged_by: float | None = None,
    budget_scale: float = 1.0,
    progress: Progress | None = None,
    log: ActionLog | None = None,
) -> list[EpisodeResult]:
    """Evaluates a policy under several budgets.

    Args:
        policy: `policy(obs, remaining_budget, remaining_steps)`, batched.
        env_id: A task of `safe_envs`; its maximum budget counts where the config has none.
        config: What to evaluate.
        cost_discount: gamma_c of the budgets that the policy is told. None: the task's.
        judged_by: gamma_c of the budgets that its episodes are judged by. None: the task's.
        budget_scale: Factor on the budgets that it is told, not on those that it is judged by.
        progress: Called as `progress(done, total)` with steps.
        log: What an interrupted evaluation continues from.

    Returns:
        One result per episode, budget after budget.
    """
    ratios, episodes = config.episodes
    budgets = ratios * (config.max_budget or task_spec(env_id).max_budget)
    if judged_by is None:
        judged_by = task_spec(env_id).cost_discount
    run = rollout(
        policy,
        env_id,
        budgets * budget_scale,
        [start_seed(config.seed, int(episode)) for episode in episodes],
        cost_discount=cost_discount,
        log=log,
        progress=progress,
    )
    costs = discounted_sum(run.costs, judged_by)
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


def evaluate_agent(
    agent: Agent,
    env_id: str,
    config: EvaluationConfig,
    *,
    progress: Progress | None = None,
    log: ActionLog | None = None,
) -> list[EpisodeResult]:
    """Evaluates an agent under several budgets; the agent stays as it is.

    All budgets advance in lockstep, or one after the other if each has an agent of its own
    (`Agent.for_budget`). Random numbers come from the evaluation's seed.

    Args:
        agent: The agent. Its task's gamma_c judges, and its task's maximum budget counts where the
            config has none.
        env_id: Any environment that reports costs and has a time limit.
        config: What to evaluate.
        progress: Called as `progress(done, total)` with steps.
        log: What an interrupted evaluation continues from.

    Returns:
        One result per episode, budget after budget.

    Raises:
        ValueError: The config has a control interval, and the agent does not plan.
    """
    max_budget = config.max_budget or agent.task.max_budget
    config = replace(config, max_budget=max_budget)
    parts: list[tuple[Agent, EvaluationConfig]] = [(agent, config)]
    of_budgets = [agent.for_budget(ratio * max_budget) for ratio in config.ratios]
    if not config.random_ratios and any(other is not agent for other in of_budgets):
        ratios = zip(of_budgets, config.ratios, strict=True)
        parts = [(other, replace(config, ratios=(ratio,))) for other, ratio in ratios]
    results = []
    for one, its_config in parts:
        generator = one.new_generator(config.seed)
        if log is not None:
            log.begin(generator, config.control_interval)
        results += evaluate_policy(
            _policy(one, generator, config.control_interval),
            env_id,
            its_config,
            cost_discount=one.cost_discount,
            judged_by=agent.task.cost_discount,
            budget_scale=one.budget_scale,
            progress=progress,
            log=log,
        )
    return results


def _policy(agent: Agent, generator: torch.Generator, control_interval: int) -> Policy:
    if control_interval == 1:
        return partial(agent.act, generator=generator)
    if not hasattr(agent, "plan"):
        raise ValueError(f"control_interval needs an agent that plans; {agent.method} does not.")
    return OpenLoop(partial(agent.plan, generator=generator), control_interval)


def summarize(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """Returns one row per budget: normalized cost (box statistics), share over budget, return.

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
