"""Evaluates agents: each under its own terms, by the protocol of `evaluation`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from safe_diffusion_agent.action_log import ActionLog
from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.evaluation import (
    EpisodeResult,
    EvaluationConfig,
    Policy,
    Progress,
    evaluate_policy,
)
from safe_envs import task_spec


def evaluate_agent(
    agent: Agent,
    env_id: str,
    config: EvaluationConfig,
    *,
    progress: Progress | None = None,
    log: ActionLog | None = None,
) -> list[EpisodeResult]:
    """Evaluates an agent under several budgets; its noise starts from the evaluation's seed.

    All budgets advance in lockstep, or one after the other if each has an agent of its own
    (`Agent.for_budget`). See `evaluate_policy`.

    Args:
        agent: The agent.
        env_id: A task of `safe_envs`.
        config: What to evaluate.
        progress: See `rollout`.
        log: What an interrupted evaluation continues from.
    """
    max_budget = config.max_budget or task_spec(env_id).max_budget
    parts: list[tuple[Agent, EvaluationConfig]] = [(agent, config)]
    of_budgets = [agent.for_budget(ratio * max_budget) for ratio in config.ratios]
    if not config.random_ratios and any(other is not agent for other in of_budgets):
        ratios = zip(of_budgets, config.ratios, strict=True)
        parts = [(other, replace(config, ratios=(ratio,))) for other, ratio in ratios]
    results = []
    for one, its_config in parts:
        one.seed = config.seed
        one.generator = one.new_generator()
        policy: Policy = one.act
        if config.control_interval > 1:
            if not hasattr(one, "plan"):
                raise ValueError(
                    f"control_interval needs an agent that plans; {one.method} does not."
                )
            policy = OpenLoop(one.plan, config.control_interval)
        if log is not None:
            policy = log.logged(policy, one.generator, config.control_interval)
        results += evaluate_policy(
            policy, env_id, its_config, progress=progress,
            cost_discount=one.cost_discount, budget_scale=one.budget_scale,
        )  # fmt: skip
    return results


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
