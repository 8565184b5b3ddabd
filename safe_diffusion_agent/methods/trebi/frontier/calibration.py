"""The margin of agents with `judge="frontier"`: scores from their models and held-out episodes."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, Task, is_held_out, next_remaining_budget
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.calibration import Calibration, rest_of_episode
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.frontier.model_fit import underestimated_costs
from safe_diffusion_agent.methods.trebi.planner import Planner

# Normalized observations `(N, O)`, remaining budgets and steps `(N,)` to normalized actions.
BudgetPolicy = Callable[[Tensor, Tensor, Tensor], Tensor]

MAX_PROMISES = 2_000  # states
MAX_IMAGINED_STEPS = 400  # of a calibration episode; longer rollouts say little


def held_out_rows(transitions: Transitions, share: float) -> Tensor:
    """Returns which transitions `(n,)` the models are not trained on: of every few episodes."""
    episode = transitions.episode
    held_out = is_held_out(int(episode[-1]) + 1, share)
    return torch.tensor(held_out, device=episode.device)[episode]


def imagined_steps(task: Task) -> int:
    """Returns the length of an imagined episode."""
    return min(task.max_episode_steps or MAX_IMAGINED_STEPS, MAX_IMAGINED_STEPS)


def calibrate(
    planner: Planner,
    judge: FrontierJudge,
    transitions: Transitions,
    episodes: Episodes,
    *,
    seed: int,
    whole_episodes: bool,
    progress: Callable[..., None] | None = None,
) -> Calibration | None:
    """Returns what the margin is taken from; None without `calibration_episodes`.

    Args:
        planner: Its networks are trained.
        judge: The planner's.
        transitions: The data.
        episodes: The same data.
        seed: Fixes the planner's noise.
        whole_episodes: Whether the models are good enough to imagine them.
        progress: Called as `progress(done, total)`, in steps of the imagined episodes.
    """
    config, dynamics = planner.config.frontier, judge.dynamics
    if config.calibration_episodes == 0:
        return None
    held_out = torch.nonzero(held_out_rows(transitions, config.held_out_share))[:, 0]
    discount = judge.critic.cost_discount
    underestimate = underestimated_costs(dynamics, transitions, held_out, discount).cpu()
    if not whole_episodes:
        broken = cost_underestimates(judge, transitions, held_out)
        return Calibration(underestimate, broken_promises=broken.cpu())
    overspend = _overspend(planner, judge, transitions, episodes, seed, progress)
    return Calibration(underestimate, overspend.cpu())


@torch.no_grad()
def cost_underestimates(judge: FrontierJudge, transitions: Transitions, rows: Tensor) -> Tensor:
    """Returns what rollouts and the critic's rest of them cost beyond what it said at their start.

    They are the cheapest that the critic's behaviors do for as many steps as the models are
    trusted: what an agent does that has just as much budget left as the critic asks for.

    Args:
        judge: Its models and its critic.
        transitions: The data.
        rows: Indices of transitions to start from; at most `MAX_PROMISES` of them do.

    Returns:
        `(m,)`, in cost units, as if a whole episode was left.
    """
    rows = rows[:: math.ceil(len(rows) / MAX_PROMISES)]
    obs, steps_left = transitions.all.obs[rows], transitions.steps_left(rows).to(torch.float32)
    num_steps, act_dim = int(judge.dynamics.trusted_steps), transitions.all.actions.shape[1]
    no_plans = obs.new_empty(len(obs), 0, num_steps, act_dim)
    rollout = judge.imagine_plans(obs, no_plans, steps_left, behaviors=True)
    num = len(rollout.costs) // len(obs)
    budget = torch.zeros(len(rollout.costs), device=obs.device)
    curves = judge.return_and_cost(rollout, steps_left.repeat_interleave(num, 0))
    _, least = judge.rate(*curves, budget)
    _, promised = judge.rate(*judge.values_to_go(obs, steps_left), budget[: len(obs)])
    broken = least.view(-1, num).min(dim=1).values - promised
    return broken / rest_of_episode(steps_left, judge.sampler.task, judge.critic.cost_discount)


def _overspend(
    planner: Planner,
    judge: FrontierJudge,
    transitions: Transitions,
    episodes: Episodes,
    seed: int,
    progress: Callable[..., None] | None,
) -> Tensor:
    task, normalizer = judge.sampler.task, judge.sampler.normalizer
    num, act_dim = planner.config.frontier.calibration_episodes, task.act_dim
    device = transitions.episode.device
    generator = torch.Generator(device).manual_seed(seed)
    starts = torch.tensor(episodes.first_steps)
    chosen = starts[torch.arange(num) * len(starts) // num].to(device)

    def policy(obs: Tensor, remaining: Tensor, left: Tensor) -> Tensor:
        observations = normalizer.to_environment(obs, slice(act_dim, None))
        choice = planner(observations, remaining, left, generator)
        rows = torch.arange(len(obs), device=device)
        return choice.trajectories[rows, choice.chosen, 0, :act_dim]

    return imagined_overspend(
        policy,
        judge.dynamics,
        transitions.all.obs[chosen],
        spread_budgets(num, task.max_budget).to(device),
        imagined_steps(task),
        judge.critic.cost_discount,
        progress,
    )


@torch.no_grad()
def imagined_overspend(
    policy: BudgetPolicy,
    dynamics: DynamicsEnsemble,
    obs: Tensor,
    budgets: Tensor,
    num_steps: int,
    cost_discount: float,
    progress: Callable[..., None] | None = None,
) -> Tensor:
    """Returns cost less budget of imagined episodes, `(N,)`; negative where something is left.

    Args:
        policy: Acts on what it is told is left of the budget.
        dynamics: The models; episode i runs in member i modulo M.
        obs: First observations, `(N, O)`, normalized.
        budgets: `(N,)`, in cost units.
        num_steps: Length of the episodes.
        cost_discount: gamma_c.
        progress: Called as `progress(done, total)`, in steps.
    """
    members = torch.arange(len(obs), device=obs.device) % dynamics.num_members
    remaining, spent = budgets.clone(), torch.zeros_like(budgets)
    alive = torch.ones_like(budgets)
    for t in range(num_steps):
        left = torch.full_like(budgets, num_steps - t)
        transition = dynamics.step(obs, policy(obs, remaining, left), members)
        spent = spent + cost_discount**t * alive * transition.cost
        remaining = next_remaining_budget(remaining, transition.cost, cost_discount)
        alive = alive * (transition.survival > 0.5)
        obs = transition.observation
        if progress is not None:
            progress(t + 1, num_steps)
    return spent - budgets


def spread_budgets(num: int, max_budget: float) -> Tensor:
    """Returns `num` budgets evenly over (0, max_budget]."""
    return torch.tensor(np.arange(1, num + 1) / num * max_budget, dtype=torch.float32)
