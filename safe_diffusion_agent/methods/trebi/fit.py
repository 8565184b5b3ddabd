"""Trains a TREBI agent: denoiser, and values (Lin et al. 2023, App. D) or the frontier."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from safe_diffusion_agent.compute import record_cuda_graph, resolve_device
from safe_diffusion_agent.episodes import Episodes, Task, is_held_out, select_episodes
from safe_diffusion_agent.learning.training import OptimizationConfig, Progress, optimize
from safe_diffusion_agent.methods.trebi.agent import DiffuserAgent, TrebiAgent
from safe_diffusion_agent.methods.trebi.calibration import (
    Calibration,
    check_risk,
    underestimated_values,
)
from safe_diffusion_agent.methods.trebi.config import TrainingConfig, TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, Schedule
from safe_diffusion_agent.methods.trebi.frontier.fit import Stages, fit_frontier, num_stage_steps
from safe_diffusion_agent.methods.trebi.frontier.planner import FrontierPlanner
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks, rescale_output
from safe_diffusion_agent.methods.trebi.planner import GuidedPlanner
from safe_diffusion_agent.methods.trebi.windows import Batch, Windows
from safe_diffusion_agent.storage import provenance


class TrebiLoss:
    """Sum of the three networks' losses; they share no weights, so each is trained by its own.

    The denoiser predicts the clean trajectory (mean squared error, the first action weighted). The
    values are regressed on the Monte Carlo return and cost of the noised trajectory (mean squared
    error, and the pinball loss for quantiles).

    Args:
        windows: Training trajectories.
        schedule: Noise schedule, on their device.
        config: Settings.
    """

    def __init__(self, windows: Windows, schedule: Schedule, config: TrebiConfig, task: Task):
        self.windows = windows
        self.schedule = schedule
        self.training, self.judge = config.training, config.model.judge
        self.act_dim = task.act_dim
        device = windows.returns.device
        self.quantiles = torch.tensor(config.model.cost_quantiles, device=device)
        self.max_steps = task.max_episode_steps if config.model.time_to_go else None
        one = torch.ones((), device=device)
        standardize = config.model.standardize_values
        self.return_scale = _scale(windows.returns) if standardize else (0.0 * one, one)
        self.cost_scale = _scale(windows.costs) if standardize else (0.0 * one, one)

    def __call__(
        self, networks: nn.Module, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one random batch, and its parts."""
        assert isinstance(networks, TrebiNetworks)
        batch = self.windows.sample(self.training.batch_size, generator)
        noised, diffusion_step = self._noise(batch, generator)
        denoising = self.denoising_loss(networks.denoiser(noised, diffusion_step), batch)
        parts = {"denoising": denoising.detach()}
        if self.judge == "frontier":
            return denoising, parts

        if self.training.clean_share > 0.0:
            device = generator.device
            share = torch.rand(len(diffusion_step), generator=generator, device=device)
            clean = share < self.training.clean_share
            noised = torch.where(clean[:, None, None], batch.trajectories, noised)
            diffusion_step = torch.where(clean, 0, diffusion_step)
        time_to_go = None
        if self.max_steps is not None:
            time_to_go = batch.remaining_steps[:, None] / self.max_steps
        returns = networks.reward(noised, diffusion_step, time_to_go)
        costs = networks.cost(noised, diffusion_step, time_to_go)
        reward_loss = _mse(returns[:, 0], _standardize(batch.returns, self.return_scale))
        cost_target = _standardize(batch.costs, self.cost_scale)
        cost_loss = _mse(costs[:, 0], cost_target) + pinball(
            costs[:, 1:], cost_target, self.quantiles
        )
        total = denoising + reward_loss + cost_loss
        parts |= {"reward_value": reward_loss.detach(), "cost_value": cost_loss.detach()}
        return total, parts

    def _noise(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        clean, device = batch.trajectories, generator.device
        diffusion_step = torch.randint(
            self.schedule.num_steps, (len(clean),), generator=generator, device=device
        )
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noised = self.schedule.add_noise(clean, diffusion_step, noise) * batch.mask
        noised[:, 0, self.act_dim :] = clean[:, 0, self.act_dim :]
        return noised, diffusion_step

    def denoising_loss(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Weighted mean squared error; the first observation is known and does not count."""
        error = (predicted - batch.trajectories) ** 2 * batch.mask
        weight = torch.ones_like(error[0])
        weight[0, : self.act_dim] = self.training.first_action_weight
        weight[0, self.act_dim :] = 0.0
        return (weight * error).mean()


def pinball(predicted: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Quantile loss of `predicted` `(N, Q)` against `target` `(N,)`, summed over quantiles."""
    error = target[:, None] - predicted
    return torch.maximum(quantiles * error, (quantiles - 1.0) * error).mean(dim=0).sum()


def fit(
    episodes: Episodes,
    config: TrebiConfig,
    *,
    seed: int = 0,
    device: str = "auto",
    state_path: Path | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[TrebiAgent, list[dict[str, float]]]:
    """Trains a TREBI agent on a dataset.

    Args:
        episodes: The dataset.
        config: Settings, such as `preset_config("quick", episodes.env_id)`.
        seed: Fixes initial weights, batches and noise.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        state_path: See `optimize`.
        save_interval: See `optimize`.
        progress: See `optimize`.

    Returns:
        The agent, and the logged losses.

    Raises:
        ValueError: The settings do not fit the dataset.
        CheckpointError: `state_path` belongs to another training.
    """
    torch_device = resolve_device(device)
    task = Task.of(episodes)
    _check(config, episodes, torch_device)
    held_out = is_held_out(len(episodes.lengths), config.training.calibration_share)
    training = select_episodes(episodes, ~held_out)
    normalizer = Normalizer.fit(
        training.actions, training.observations, training.action_low, training.action_high
    )
    networks = _new_networks(config, task, seed).to(torch_device)
    schedule = Schedule.cosine(config.model.diffusion_steps, torch_device)
    windows = _windows(training, normalizer, config, task, torch_device)
    loss = TrebiLoss(windows, schedule, config, task)
    stages = Stages(
        seed=seed,
        identity={"config": asdict(config), "task": asdict(task), "seed": seed},
        state_path=state_path,
        progress=progress,
        total=num_stage_steps(config, task),
    )
    trained, history = optimize(
        networks,
        loss,
        _optimization(config.training),
        generator=torch.Generator(torch_device).manual_seed(seed),
        record=record_cuda_graph if config.training.recorded_training else None,
        state_path=state_path,
        identity=stages.identity,
        save_interval=save_interval,
        progress=stages.progress_after(0),
    )
    networks.load_state_dict(trained.state_dict())
    about: dict[str, Any] = {
        "seed": seed,
        "behavior_policy": episodes.metadata.get("behavior_policy"),
        "provenance": provenance(),
    }
    of_planner = (networks, schedule, normalizer.to(torch_device), config, task)
    if config.model.judge == "values":
        rescale_output(networks.reward, *loss.return_scale)
        rescale_output(networks.cost, *loss.cost_scale)
        calibration = _calibrate(GuidedPlanner(*of_planner), select_episodes(episodes, held_out))
    else:
        planner = FrontierPlanner(*of_planner)
        fitted = fit_frontier(planner, episodes, stages)
        calibration, history = fitted.calibration, [*history, *fitted.history]
        about |= {"model_errors": fitted.model_errors, "branches": fitted.branches}
    about["losses"] = history[-1]
    agent = TrebiAgent(
        networks, normalizer, config, task, calibration, about=about, device=torch_device
    )
    return agent, history


def _check(config: TrebiConfig, episodes: Episodes, device: torch.device) -> None:
    if config.training.recorded_training and device.type != "cuda":
        raise ValueError("recorded_training needs a CUDA device. Use recorded_training=false.")
    if config.model.time_to_go and episodes.max_episode_steps is None:
        raise ValueError("time_to_go needs a dataset whose episodes have a time limit.")
    check_risk(config, episodes)


def _new_networks(config: TrebiConfig, task: Task, seed: int) -> TrebiNetworks:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # PyTorch initialises weights from its global generator
        return TrebiNetworks(config.model, task)


def _windows(
    episodes: Episodes,
    normalizer: Normalizer,
    config: TrebiConfig,
    task: Task,
    device: torch.device,
) -> Windows:
    return Windows(
        episodes,
        normalizer,
        config.model.horizon,
        discount=config.model.discount or task.cost_discount,
        cost_discount=config.model.cost_discount or task.cost_discount,
        coverage=config.training.windows,
        termination_penalty=config.training.termination_penalty,
        device=device,
    )


def _calibrate(planner: GuidedPlanner, episodes: Episodes) -> Calibration | None:
    """Scores of held-out episodes, by the costs that were paid; None without such episodes."""
    if len(episodes.lengths) == 0:
        return None
    config = planner.config.override(termination_penalty=0.0)
    device = planner.schedule.alpha_bar.device
    windows = _windows(episodes, planner.normalizer, config, planner.task, device)
    return Calibration(underestimated_values(planner, windows))


def _optimization(training: TrainingConfig) -> OptimizationConfig:
    return OptimizationConfig(
        **{field.name: getattr(training, field.name) for field in fields(OptimizationConfig)}
    )


def _scale(targets: Tensor) -> tuple[Tensor, Tensor]:
    return targets.mean(), targets.std().clamp_min(1e-6)


def _standardize(targets: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    return (targets - scale[0]) / scale[1]


def _mse(predicted: Tensor, target: Tensor) -> Tensor:
    return torch.mean((predicted - target) ** 2)


def fit_diffuser(
    episodes: Episodes, config: TrebiConfig, **options: Any
) -> tuple[DiffuserAgent, list[dict[str, float]]]:
    """Trains a plain Diffuser; see `trebi.fit.fit`."""
    agent, history = fit(episodes, config, **options)
    return DiffuserAgent.of(agent), history
