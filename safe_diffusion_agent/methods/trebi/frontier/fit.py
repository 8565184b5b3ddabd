"""Trains what plans are judged by with `judge="frontier"`: models, critic, and the margin.

Three stages that follow the denoiser's training. Each saves beside it, and can be continued.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from safe_diffusion_agent.episodes import Episodes, Task, is_held_out, values_to_go
from safe_diffusion_agent.learning.training import History, OptimizationConfig, Stages, optimize
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.frontier.branches import RolloutSource
from safe_diffusion_agent.methods.trebi.frontier.calibration import (
    calibrate,
    held_out_rows,
    imagined_steps,
)
from safe_diffusion_agent.methods.trebi.frontier.critic_fit import CriticTraining
from safe_diffusion_agent.methods.trebi.frontier.imitation import ImitationTraining
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.frontier.model_fit import (
    DynamicsTraining,
    trusted_steps,
    unexplained_elsewhere,
    unexplained_shares,
)
from safe_diffusion_agent.methods.trebi.planner import Planner

AVERAGED: dict[str, Any] = {"ema_decay": 0.998, "ema_interval": 1, "ema_start": 100}


def fit_frontier(
    planner: Planner, episodes: Episodes, stages: Stages
) -> tuple[Calibration | None, dict[str, Any], History]:
    """Trains models and critic of a planner whose denoiser is trained, in place.

    Models are asked about plans that nobody recorded. If they are good there, too, the critic
    learns in them, from branches; if not, by imitation of the recorded episodes.

    A critic that learned from branches and whose margin is larger than `FrontierConfig.max_margin`
    makes use of the models' errors. Then one is trained by imitation, and kept
    if its margin is smaller, and smaller than the largest budget. (Where both can do nothing but
    what costs least, the one that learned from branches knows what costs less.)

    Args:
        planner: The planner.
        episodes: The dataset.
        stages: Seed, files and progress.

    Returns:
        What the margin is taken from, JSON values to keep with the agent, and the logged losses.
    """
    stage = _Stage.of(planner, episodes)
    config, critic = stage.config, stage.judge.critic
    before = config.training.num_steps
    errors, elsewhere, history = stage.fit_models(stages, before)
    stage.set_scales()
    before += config.frontier.model_steps
    num_trusted = trusted_steps(elsewhere, config.frontier.model_tolerance)
    imagines = config.frontier.imagines(num_trusted)
    source = RolloutSource(stage.judge.sampler) if imagines else None
    untrained = copy.deepcopy(critic.state_dict())
    less = config.frontier.critic_steps - config.frontier.imitation_steps

    def fit_critic(
        name: str, source: RolloutSource | None, stages: Stages, before: int
    ) -> Calibration | None:
        num_steps = config.frontier.critic_steps if source else config.frontier.imitation_steps
        history.extend(stage.fit_critic(source, stages, name, before, num_steps))
        planner.renew()
        progress = stages.progress_after(before + num_steps)
        parts = (planner, stage.judge, stage.transitions, episodes)
        return calibrate(*parts, seed=stages.seed, whole_episodes=imagines, progress=progress)

    if source is None:
        stages = replace(stages, total=stages.total - less)
    calibration = fit_critic("critic", source, stages, before)
    branches, margin = source is not None, stage.margin_share(calibration)
    if branches and margin > config.frontier.max_margin:
        with_branches = copy.deepcopy(critic.state_dict())
        critic.load_state_dict(untrained)
        steps = _critic_steps(config, stage.judge.sampler.task)
        longer = replace(stages, total=stages.total + steps - less)
        alone = fit_critic("critic-alone", None, longer, before + steps)
        if stage.margin_share(alone) < min(margin, 1.0):
            calibration, branches = alone, False
        else:
            critic.load_state_dict(with_branches)
            stage.judge.refresh()
            planner.renew()
    about = {"model_errors": errors, "model_errors_elsewhere": elsewhere, "branches": branches}
    return calibration, about, history


def num_stage_steps(config: TrebiConfig, task: Task) -> int:
    """Returns the steps of all stages after the denoiser's training."""
    return config.frontier.model_steps + _critic_steps(config, task)


def check_risk(config: TrebiConfig, episodes: Episodes) -> None:
    """Finds out before a training whether its calibration will have enough scores.

    Raises:
        ValueError: It will not.
    """
    risk, frontier = config.planner.risk, config.frontier
    if risk is None:
        return
    held_out = is_held_out(len(episodes.lengths), frontier.held_out_share)
    num_windows = int((episodes.lengths[held_out] // config.model.horizon).sum())
    needed = math.ceil(2.0 / risk) - 1
    if min(num_windows, frontier.calibration_episodes) < needed:
        raise ValueError(
            f"A risk of {risk:g} needs {needed} calibration_episodes and as many windows of "
            f"held-out data; there are {frontier.calibration_episodes} and {num_windows}. Use more "
            "data, a larger risk, or risk=None for no margin."
        )


def _critic_steps(config: TrebiConfig, task: Task) -> int:
    """Returns the steps of the critic's training and of its margin."""
    frontier = config.frontier
    return frontier.critic_steps + (imagined_steps(task) if frontier.calibration_episodes else 0)


@dataclass(frozen=True)
class _Stage:
    """What the stages work on."""

    config: TrebiConfig
    judge: FrontierJudge
    transitions: Transitions
    episodes: Episodes  # the same data
    device: torch.device

    @classmethod
    def of(cls, planner: Planner, episodes: Episodes) -> "_Stage":
        judge = planner.judge
        assert isinstance(judge, FrontierJudge)
        device = judge.sampler.schedule.alpha_bar.device
        transitions = Transitions(episodes, judge.sampler.normalizer, device)
        return cls(planner.config, judge, transitions, episodes, device)

    def fit_models(
        self, stages: Stages, before: int
    ) -> tuple[dict[str, list[float]], dict[str, list[float]], History]:
        """Trains the models, and finds out how wrong they are, on recorded plans and on others."""
        config, dynamics = self.config.frontier, self.judge.dynamics
        held_out = held_out_rows(self.transitions, config.held_out_share)
        rows = torch.arange(len(self.transitions), device=self.device)
        trained, history = optimize(
            DynamicsTraining(
                dynamics.requires_grad_(True),
                self.transitions,
                rows[~held_out],
                config.model_batch_size,
            ),
            OptimizationConfig(
                num_steps=config.model_steps,
                learning_rate=config.model_learning_rate,
                decay_from=0.0,
                **AVERAGED,
            ),
            generator=torch.Generator(self.device).manual_seed(stages.seed),
            state_path=stages.path("models"),
            identity=stages.identity,
            progress=stages.progress_after(before),
        )
        dynamics.load_state_dict(trained.state_dict())
        dynamics.requires_grad_(False)
        horizon = self.config.model.horizon
        shares = unexplained_shares(dynamics, self.transitions, rows[held_out], horizon)
        dynamics.trusted_steps.fill_(trusted_steps(shares, config.model_tolerance))
        generator = torch.Generator(self.device).manual_seed(stages.seed)
        elsewhere = unexplained_elsewhere(
            dynamics, self.transitions, rows[held_out], shares, generator
        )
        return shares, elsewhere, history

    def set_scales(self) -> None:
        """Sets the critic's units and bounds to those of the data."""
        episodes = self.episodes
        rewards, costs, lengths = episodes.rewards, episodes.costs, episodes.lengths
        critic, normalizer = self.judge.critic, self.judge.sampler.normalizer
        scales = {
            "reward_low": rewards.min(),
            "reward_high": rewards.max(),
            "return_scale": values_to_go(rewards, lengths, critic.discount).std(),
            "cost_scale": values_to_go(costs, lengths, critic.cost_discount).std(),
        }
        for name, value in scales.items():
            floor = 1e-6 if name.endswith("scale") else -np.inf
            getattr(critic, name).fill_(max(float(value), floor))
        act_dim = self.judge.sampler.task.act_dim
        critic.action_low.copy_(normalizer.low[:act_dim])
        critic.action_high.copy_(normalizer.high[:act_dim])

    def fit_critic(
        self,
        source: RolloutSource | None,
        stages: Stages,
        name: str,
        before: int,
        num_steps: int,
    ) -> History:
        """Trains the critic: by branches, or without a source of them by imitation."""
        config, critic = self.config.frontier, self.judge.critic
        critic.requires_grad_(True)
        training = (
            ImitationTraining(critic, self.transitions, self.episodes, config)
            if source is None
            else CriticTraining(critic, self.transitions, source, config)
        )
        trained, history = optimize(
            training,
            OptimizationConfig(
                num_steps=num_steps,
                learning_rate=config.critic_learning_rate,
                decay_from=0.5,
                **AVERAGED,
            ),
            generator=torch.Generator(self.device).manual_seed(stages.seed),
            state_path=stages.path(name),
            identity=stages.identity,
            save_interval=config.branch_interval,  # a continued training imagines the same branches
            progress=stages.progress_after(before),
        )
        critic.load_state_dict(trained.state_dict())
        critic.requires_grad_(False)
        self.judge.refresh()
        return history

    def margin_share(self, calibration: Calibration | None) -> float:
        """Returns the margin for the risk as a share of the maximum budget; 0 without either."""
        risk = self.config.planner.risk
        if calibration is None or risk is None:
            return 0.0
        return calibration.margin(risk).at_start / self.judge.sampler.task.max_budget
