"""The margin of agents with `judge="frontier"`: scores from their models and held-out episodes."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, Task, is_held_out
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble
from safe_diffusion_agent.learning.transitions import Pieces
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.frontier.model_fit import underestimated_costs
from safe_diffusion_agent.methods.trebi.frontier.planner import FrontierPlanner, Judge

# Normalised observations `(N, O)`, remaining budgets and steps `(N,)` to normalised actions.
BudgetPolicy = Callable[[Tensor, Tensor, Tensor], Tensor]

MAX_PROMISES = 2_000  # states
MAX_IMAGINED_STEPS = 400  # of a calibration episode; longer rollouts say little


def held_out_rows(pieces: Pieces, share: float) -> Tensor:
    """Which transitions `(n,)` the models are not trained on: those of every few episodes."""
    held_out = is_held_out(int(pieces.episode[-1]) + 1, share)
    return torch.tensor(held_out, device=pieces.episode.device)[pieces.episode]


def imagined_steps(task: Task) -> int:
    """Length of an imagined episode."""
    return min(task.max_episode_steps or MAX_IMAGINED_STEPS, MAX_IMAGINED_STEPS)


def calibrate(
    planner: FrontierPlanner,
    pieces: Pieces,
    episodes: Episodes,
    *,
    seed: int,
    progress: Callable[..., None] | None = None,
) -> Calibration | None:
    """What the margin is taken from; see `Calibration`. None without `calibration_episodes`.

    Args:
        planner: Its networks are trained.
        pieces: The data.
        episodes: The same data.
        seed: Fixes the planner's noise.
        progress: Called as `progress(done, total)`, in steps of the imagined episodes.
    """
    config, dynamics = planner.config.frontier, planner.networks.dynamics
    if config.calibration_episodes == 0:
        return None
    held_out = torch.nonzero(held_out_rows(pieces, config.held_out_share))[:, 0]
    underestimate = underestimated_costs(dynamics, pieces, held_out).cpu()
    if config.min_branch_steps > dynamics.trusted_steps:  # whole episodes would say nothing
        overspend = broken_promises(planner.judge(), pieces, held_out)
    else:
        overspend = _overspend(planner, pieces, episodes, seed, progress)
    return Calibration(underestimate, overspend.cpu())


@torch.no_grad()
def broken_promises(judge: Judge, pieces: Pieces, rows: Tensor) -> Tensor:
    """Cost of imagined pieces, and of the rest by the critic, beyond what it said at their start.

    They are the cheapest that the critic's behaviors do for as many steps as the models are
    trusted: what an agent would have to do that has just as much budget left as the critic asks
    for.

    Args:
        judge: Its models and its critic.
        pieces: The data.
        rows: Indices of transitions to start from; at most `MAX_PROMISES` of them do.

    Returns:
        `(m,)`, in cost units.
    """
    rows = rows[:: math.ceil(len(rows) / MAX_PROMISES)]
    obs, steps_left = pieces.obs[rows], pieces.steps_left(rows).to(torch.float32)
    num_steps, act_dim = int(judge.dynamics.trusted_steps), pieces.actions.shape[1]
    nothing_given = obs.new_empty(len(obs), 0, num_steps, act_dim)
    piece = judge.roll_out(obs, nothing_given, steps_left, habits=True)
    num = len(piece.costs) // len(obs)
    budget = torch.zeros(len(piece.costs), device=obs.device)
    returns, costs = judge.curves(piece, steps_left.repeat_interleave(num, 0))
    _, least = judge.rate(returns, costs, budget)
    _, promised = judge.rate(*judge.frontier(obs, steps_left), budget[: len(obs)])
    return least.view(-1, num).min(dim=1).values - promised


def _overspend(
    planner: FrontierPlanner,
    pieces: Pieces,
    episodes: Episodes,
    seed: int,
    progress: Callable[..., None] | None,
) -> Tensor:
    num, act_dim = planner.config.frontier.calibration_episodes, planner.task.act_dim
    device = pieces.obs.device
    generator = torch.Generator(device).manual_seed(seed)
    starts = torch.tensor(np.cumsum(episodes.lengths) - episodes.lengths)
    chosen = starts[torch.arange(num) * len(starts) // num].to(device)

    def policy(obs: Tensor, remaining: Tensor, left: Tensor) -> Tensor:
        observations = planner.normalizer.unnormalize(obs, slice(act_dim, None))
        choice = planner(observations, remaining, left, generator)
        rows = torch.arange(len(obs), device=device)
        return choice.trajectories[rows, choice.chosen, 0, :act_dim]

    return imagined_overspend(
        policy,
        planner.networks.dynamics,
        pieces.obs[chosen],
        spread_budgets(num, planner.task.max_budget).to(device),
        imagined_steps(planner.task),
        planner.networks.critic.cost_discount,
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
    """Cost less budget of imagined episodes, `(N,)`; negative where something is left.

    Args:
        policy: Acts on what it is told is left of the budget.
        dynamics: The models; episode i runs in member i modulo M.
        obs: First observations, `(N, O)`, normalised.
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
        remaining = (remaining - transition.cost) / cost_discount
        alive = alive * (transition.survival > 0.5)
        obs = transition.observation
        if progress is not None:
            progress(t + 1, num_steps)
    return spent - budgets


def spread_budgets(num: int, max_budget: float) -> Tensor:
    """`num` budgets evenly over (0, max_budget]."""
    return torch.tensor(np.arange(1, num + 1) / num * max_budget, dtype=torch.float32)
