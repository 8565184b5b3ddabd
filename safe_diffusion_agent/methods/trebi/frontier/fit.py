"""Trains what plans are judged by with `judge="frontier"`: models, critic, and the margin.

Three stages that follow the denoiser's training. Each saves beside it, and can be continued.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safe_diffusion_agent.episodes import Episodes, Task, values_to_go
from safe_diffusion_agent.learning.training import OptimizationConfig, Progress, optimize
from safe_diffusion_agent.learning.transitions import Pieces
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.frontier.calibration import (
    calibrate,
    held_out_rows,
    imagined_steps,
)
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.frontier.critic_fit import (
    CriticLoss,
    CriticTraining,
    Imagination,
)
from safe_diffusion_agent.methods.trebi.frontier.model_fit import (
    DynamicsLoss,
    trusted_steps,
    unexplained_shares,
)
from safe_diffusion_agent.methods.trebi.frontier.planner import FrontierPlanner


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


@dataclass(frozen=True)
class FrontierFit:
    """What a training of models and critic gives, beside the networks.

    Attributes:
        calibration: What the margin is taken from.
        model_errors: See `unexplained_shares`.
        branches: Whether the critic learned from imagined branches, too.
        history: The logged losses.
    """

    calibration: Calibration | None
    model_errors: dict[str, list[float]]
    branches: bool
    history: list[dict[str, float]]


def fit_frontier(planner: FrontierPlanner, episodes: Episodes, stages: Stages) -> FrontierFit:
    """Trains models and critic of a planner whose denoiser is trained, in place.

    A critic that learned from branches and whose margin is larger than `FrontierConfig.max_margin`
    makes use of the models' errors. Then one is trained from the recorded episodes alone, and kept
    if its margin is smaller, and smaller than the largest budget. (Where both can do nothing but
    what costs least, the one that learned from branches knows what costs less.)

    Args:
        planner: The planner.
        episodes: The dataset.
        stages: Seed, files and progress.
    """
    networks, config, task = planner.networks, planner.config, planner.task
    critic, device = networks.critic, planner.schedule.alpha_bar.device
    pieces = Pieces(
        episodes,
        planner.normalizer,
        discount=critic.discount,
        cost_discount=critic.cost_discount,
        device=device,
    )
    before = config.training.num_steps
    errors, history = _fit_models(planner, pieces, stages, before)
    _set_scales(critic, episodes, planner)
    before += config.frontier.model_steps
    imagination = _imagination(planner)
    untrained = copy.deepcopy(critic.state_dict())

    def fit_critic(
        name: str, imagination: Imagination | None, stages: Stages, before: int
    ) -> Calibration | None:
        history.extend(_fit_critic(planner, pieces, imagination, stages, name, before))
        progress = stages.progress_after(before + config.frontier.critic_steps)
        return calibrate(planner, pieces, episodes, seed=stages.seed, progress=progress)

    calibration = fit_critic("critic", imagination, stages, before)
    margin = _margin_share(calibration, planner)
    if imagination is None or margin <= config.frontier.max_margin:
        return FrontierFit(calibration, errors, imagination is not None, history)
    with_branches = copy.deepcopy(critic.state_dict())
    critic.load_state_dict(untrained)
    steps = _critic_steps(config, task)
    stages = replace(stages, total=stages.total + steps)
    alone = fit_critic("critic-alone", None, stages, before + steps)
    if _margin_share(alone, planner) < min(margin, 1.0):
        return FrontierFit(alone, errors, False, history)
    critic.load_state_dict(with_branches)
    return FrontierFit(calibration, errors, True, history)


def _margin_share(calibration: Calibration | None, planner: FrontierPlanner) -> float:
    """Margin for the planner's risk as a share of the maximum budget; 0 without either."""
    risk = planner.config.planner.risk
    if calibration is None or risk is None:
        return 0.0
    return calibration.margin(risk) / planner.task.max_budget


def num_stage_steps(config: TrebiConfig, task: Task) -> int:
    """Steps of all stages, the denoiser's training included, as `Stages.total` counts them."""
    frontier, total = config.frontier, config.training.num_steps
    if config.model.judge == "frontier":
        total += frontier.model_steps + _critic_steps(config, task)
    return total


def _critic_steps(config: TrebiConfig, task: Task) -> int:
    """Steps of the critic's training and of its margin."""
    frontier = config.frontier
    return frontier.critic_steps + (imagined_steps(task) if frontier.calibration_episodes else 0)


def _fit_models(
    planner: FrontierPlanner, pieces: Pieces, stages: Stages, before: int
) -> tuple[dict[str, list[float]], list[dict[str, float]]]:
    config, dynamics = planner.config.frontier, planner.networks.dynamics
    held_out = held_out_rows(pieces, config.held_out_share)
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
    planner: FrontierPlanner,
    pieces: Pieces,
    imagination: Imagination | None,
    stages: Stages,
    name: str,
    before: int,
) -> list[dict[str, float]]:
    config, networks = planner.config.frontier, planner.networks
    loss = CriticLoss(pieces, imagination, config)
    trained, history = optimize(
        CriticTraining(networks.critic.requires_grad_(True)),
        loss,
        _optimization(config.critic_steps, config.critic_learning_rate, decay_from=0.5),
        generator=torch.Generator(pieces.obs.device).manual_seed(stages.seed),
        after_step=loss.after_step,
        state_path=stages.path(name),
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
