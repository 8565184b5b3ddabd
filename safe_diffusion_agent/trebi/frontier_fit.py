"""Trains what plans are judged by with `judge="frontier"`: models, critic, and the margin.

Three stages that follow the denoiser's training. Each saves beside it, and can be continued.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.data import Episodes
from safe_diffusion_agent.optimization import OptimizationConfig, Progress, optimize
from safe_diffusion_agent.task import Task
from safe_diffusion_agent.trebi.calibration import (
    Calibration,
    imagined_overspend,
    spread_budgets,
)
from safe_diffusion_agent.trebi.config import TrebiConfig
from safe_diffusion_agent.trebi.critic_fit import CriticLoss, CriticTraining, Imagination
from safe_diffusion_agent.trebi.frontier import FrontierPlanner, Judge
from safe_diffusion_agent.trebi.frontier_networks import FrontierCritic
from safe_diffusion_agent.trebi.held_out import is_held_out
from safe_diffusion_agent.trebi.model_fit import (
    DynamicsLoss,
    trusted_steps,
    underestimated_costs,
    unexplained_shares,
)
from safe_diffusion_agent.trebi.pieces import Pieces
from safe_diffusion_agent.trebi.windows import values_to_go

MAX_PROMISES = 2_000  # states
MAX_IMAGINED_STEPS = 400  # of a calibration episode; longer rollouts say little


@dataclass(frozen=True)
class Stages:
    """What the stages of a training share.

    Attributes:
        seed: Fixes batches and noise.
        identity: See `optimize`.
        state_path: File of the denoiser's training. None saves nothing.
        progress: Called as `progress(done, total, ...)` over all stages.
        total: Steps of all stages.
    """

    seed: int
    identity: Mapping[str, Any]
    state_path: Path | None
    progress: Progress | None
    total: int

    def path(self, stage: str) -> Path | None:
        """Where a stage saves."""
        path = self.state_path
        return None if path is None else path.with_stem(f"{path.stem}-{stage}")

    def progress_after(self, done_before: int) -> Progress:
        """Progress of a stage as a part of all."""

        def progress(done: int, _: int, **values: float) -> None:
            if self.progress is not None:
                self.progress(done_before + done, self.total, **values)

        return progress


def fit_frontier(
    planner: FrontierPlanner, episodes: Episodes, stages: Stages
) -> tuple[Calibration | None, dict[str, list[float]], list[dict[str, float]]]:
    """Trains models and critic of a planner whose denoiser is trained, in place.

    Args:
        planner: The planner.
        episodes: The dataset.
        stages: Seed, files and progress.

    Returns:
        What the margin is taken from, the models' errors (see `unexplained_shares`), and the logged
        losses.
    """
    networks, config = planner.networks, planner.config
    critic, device = networks.critic, planner.schedule.alpha_bar.device
    pieces = Pieces(
        episodes,
        planner.normalizer,
        discount=critic.discount,
        cost_discount=critic.cost_discount,
        device=device,
    )
    before = config.training.num_steps
    shares, model_history = _fit_models(planner, pieces, stages, before)
    _set_scales(critic, episodes, planner)
    before += config.frontier.model_steps
    critic_history = _fit_critic(planner, pieces, stages, before)
    before += config.frontier.critic_steps
    calibration = _calibrate(planner, pieces, episodes, stages, before)
    return calibration, shares, [*model_history, *critic_history]


def num_stage_steps(config: TrebiConfig, task: Task) -> int:
    """Steps of all stages, the denoiser's training included, as `Stages.total` counts them."""
    frontier, total = config.frontier, config.training.num_steps
    if config.model.judge == "frontier":
        imagined = _imagined_steps(task) if frontier.calibration_episodes else 0
        total += frontier.model_steps + frontier.critic_steps + imagined
    return total


def _fit_models(
    planner: FrontierPlanner, pieces: Pieces, stages: Stages, before: int
) -> tuple[dict[str, list[float]], list[dict[str, float]]]:
    config, dynamics = planner.config.frontier, planner.networks.dynamics
    held_out = _held_out(planner, pieces)
    rows = torch.arange(len(pieces), device=held_out.device)
    loss = DynamicsLoss(pieces, rows[~held_out], config.model_batch_size)
    loss.standardize(dynamics)
    trained, history = optimize(
        dynamics.requires_grad_(True),
        loss,
        _optimization(config.model_steps, config.model_learning_rate, decay_from=0.0),
        generator=torch.Generator(held_out.device).manual_seed(stages.seed),
        state_path=stages.path("models"),
        identity=stages.identity,
        progress=stages.progress_after(before),
    )
    dynamics.load_state_dict(trained.state_dict())
    dynamics.requires_grad_(False)
    shares = unexplained_shares(dynamics, pieces, rows[held_out], planner.config.model.horizon)
    dynamics.trusted_steps.fill_(trusted_steps(shares, config.model_tolerance))
    return shares, history


def _held_out(planner: FrontierPlanner, pieces: Pieces) -> Tensor:
    """Which transitions the models are not trained on: those of every few episodes."""
    num_episodes = int(pieces.episode[-1]) + 1
    held_out = is_held_out(num_episodes, planner.config.frontier.held_out_share)
    return torch.tensor(held_out, device=pieces.episode.device)[pieces.episode]


def _set_scales(critic: FrontierCritic, episodes: Episodes, planner: FrontierPlanner) -> None:
    """Sets the critic's units and bounds to those of the data."""
    rewards, costs, lengths = episodes.rewards, episodes.costs, episodes.lengths
    act_dim = planner.task.act_dim
    scales = {
        "reward_low": rewards.min(),
        "reward_high": rewards.max(),
        "return_scale": values_to_go(rewards, lengths, critic.discount).std(),
        "cost_scale": values_to_go(costs, lengths, critic.cost_discount).std(),
    }
    for name, value in scales.items():
        floor = 1e-6 if name.endswith("scale") else -np.inf
        getattr(critic, name).fill_(max(float(value), floor))
    critic.action_low.copy_(planner.normalizer.low[:act_dim])
    critic.action_high.copy_(planner.normalizer.high[:act_dim])


def _fit_critic(
    planner: FrontierPlanner, pieces: Pieces, stages: Stages, before: int
) -> list[dict[str, float]]:
    config, networks = planner.config.frontier, planner.networks
    loss = CriticLoss(pieces, _imagination(planner), config)
    trained, history = optimize(
        CriticTraining(networks.critic.requires_grad_(True)),
        loss,
        _optimization(config.critic_steps, config.critic_learning_rate, decay_from=0.5),
        generator=torch.Generator(pieces.obs.device).manual_seed(stages.seed),
        after_step=loss.after_step,
        state_path=stages.path("critic"),
        identity=stages.identity,
        save_interval=config.branch_interval,  # a continued training imagines the same branches
        progress=stages.progress_after(before),
    )
    assert isinstance(trained, CriticTraining)
    networks.critic.load_state_dict(trained.critic.state_dict())
    networks.critic.requires_grad_(False)
    return history


def _imagination(planner: FrontierPlanner) -> Imagination | None:
    networks = planner.networks
    num_steps = int(networks.dynamics.trusted_steps)
    if not planner.config.frontier.imagines(num_steps):
        return None
    return Imagination(
        dynamics=networks.dynamics,
        denoiser=lambda x, i: planner.clip(networks.denoiser(x, i)),
        schedule=planner.schedule,
        horizon=planner.config.model.horizon,
        num_steps=num_steps,
    )


def _calibrate(
    planner: FrontierPlanner, pieces: Pieces, episodes: Episodes, stages: Stages, before: int
) -> Calibration | None:
    config, dynamics = planner.config.frontier, planner.networks.dynamics
    if config.calibration_episodes == 0:
        return None
    held_out = torch.nonzero(_held_out(planner, pieces))[:, 0]
    underestimate = underestimated_costs(dynamics, pieces, held_out).cpu()
    if config.min_branch_steps > dynamics.trusted_steps:  # whole episodes would say nothing
        overspend = broken_promises(planner.judge(), pieces, held_out)
    else:
        overspend = _overspend(planner, pieces, episodes, stages, before)
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
    planner: FrontierPlanner, pieces: Pieces, episodes: Episodes, stages: Stages, before: int
) -> Tensor:
    num, act_dim = planner.config.frontier.calibration_episodes, planner.task.act_dim
    device = pieces.obs.device
    generator = torch.Generator(device).manual_seed(stages.seed)
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
        _imagined_steps(planner.task),
        planner.networks.critic.cost_discount,
        stages.progress_after(before),
    )


def _imagined_steps(task: Task) -> int:
    return min(task.max_episode_steps or MAX_IMAGINED_STEPS, MAX_IMAGINED_STEPS)


def _optimization(num_steps: int, learning_rate: float, decay_from: float) -> OptimizationConfig:
    return OptimizationConfig(
        num_steps=num_steps,
        accumulate=1,
        learning_rate=learning_rate,
        decay_from=decay_from,
        ema_decay=0.998,
        ema_interval=1,
        ema_start=100,
    )
