"""What the networks are trained on (Lin et al. 2023, App. D): the denoiser, and the two values."""

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.training import Training
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.windows import Batch, Windows


class DenoiserTraining(Training):
    """Trains the denoiser to predict the clean trajectory from a noised one.

    Args:
        networks: Networks with a `denoiser`.
        windows: Training trajectories.
        schedule: Noise schedule, on their device.
        config: Settings.
        task: Dimensions.
    """

    def __init__(
        self,
        networks: nn.Module,
        windows: Windows,
        schedule: NoiseSchedule,
        config: TrebiConfig,
        task: Task,
    ):
        super().__init__(networks)
        self.windows, self.schedule = windows, schedule
        self.config, self.task = config.training, task

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the loss of one random batch."""
        return self._denoising(generator)[0]

    def _denoising(
        self, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Batch, Tensor, Tensor]:
        """Returns the loss, the batch, its noised trajectories, and their diffusion steps."""
        batch = self.windows.sample(self.config.batch_size, generator)
        clean, device, act_dim = batch.trajectories, generator.device, self.task.act_dim
        step = torch.randint(
            self.schedule.num_steps, (len(clean),), generator=generator, device=device
        )
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noised = self.schedule.add_noise(clean, step, noise) * batch.mask
        noised[:, 0, act_dim:] = clean[:, 0, act_dim:]
        loss = self.denoising_loss(self.networks.denoiser(noised, step), batch)
        return {"denoising": loss}, batch, noised, step

    def denoising_loss(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Returns a weighted mean squared error; the first observation is known: weight 0."""
        error = (predicted - batch.trajectories) ** 2 * batch.mask
        weight = torch.ones_like(error[0])
        weight[0, : self.task.act_dim] = self.config.first_action_weight
        weight[0, self.task.act_dim :] = 0.0
        return (weight * error).mean()


class ValueTraining(DenoiserTraining):
    """Trains denoiser and values; they share no weights, so each is trained by its own loss.

    The values are regressed on the Monte Carlo return and cost of the noised trajectory (mean
    squared error, and the pinball loss for quantiles). Arguments as of `DenoiserTraining`.
    """

    num_done: Tensor  # steps, where the values are not trained in all of them

    def __init__(
        self,
        networks: nn.Module,
        windows: Windows,
        schedule: NoiseSchedule,
        config: TrebiConfig,
        task: Task,
    ):
        super().__init__(networks, windows, schedule, config, task)
        rate = self.config.value_learning_rate
        if rate is not None:
            self.learning_rates = {"networks.reward": rate, "networks.cost": rate}
        if self.config.value_steps is not None:
            self.register_buffer("num_done", torch.zeros((), dtype=torch.int64))
        self._quantiles = torch.tensor(config.model.cost_quantiles, device=windows.returns.device)
        self._max_steps = task.max_episode_steps if config.model.time_to_go else None
        standardize = config.model.standardize_values
        self.return_scale = _scale(windows.returns, standardize)
        self.cost_scale = _scale(windows.costs, standardize)

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one random batch."""
        losses, batch, noised, step = self._denoising(generator)
        num_steps = self.config.value_steps
        if num_steps is not None and int(self.num_done) >= num_steps:
            return losses
        if self.config.clean_share > 0.0:
            share = torch.rand(len(step), generator=generator, device=generator.device)
            clean = share < self.config.clean_share
            noised = torch.where(clean[:, None, None], batch.trajectories, noised)
            step = torch.where(clean, 0, step)
        time_to_go = None
        if self._max_steps is not None:
            time_to_go = batch.remaining_steps[:, None] / self._max_steps
        returns = self.networks.reward(noised, step, time_to_go)
        costs = self.networks.cost(noised, step, time_to_go)
        cost_target = _standardize(batch.costs, self.cost_scale)
        losses["reward_value"] = _mse(returns[:, 0], _standardize(batch.returns, self.return_scale))
        losses["cost_value"] = _mse(costs[:, 0], cost_target) + pinball(
            costs[:, 1:], cost_target, self._quantiles
        )
        return losses

    def after_step(self) -> None:
        """Counts the steps, if the values are not trained in all of them."""
        if self.config.value_steps is not None:
            self.num_done += 1


def windows_of(
    episodes: Episodes,
    normalizer: Normalizer,
    config: TrebiConfig,
    task: Task,
    device: torch.device,
    termination_penalty: float | None = None,
) -> Windows:
    """Cuts a dataset as the settings say; None takes their termination penalty."""
    training = config.training
    return Windows(
        episodes,
        normalizer,
        config.model.horizon,
        discount=config.model.discount or task.cost_discount,
        cost_discount=config.model.cost_discount or task.cost_discount,
        coverage=training.windows,
        termination_penalty=(
            training.termination_penalty if termination_penalty is None else termination_penalty
        ),
        device=device,
    )


def pinball(predicted: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Returns the quantile loss of `predicted` `(N, Q)` against `target` `(N,)`, summed over Q."""
    error = target[:, None] - predicted
    return torch.maximum(quantiles * error, (quantiles - 1.0) * error).mean(dim=0).sum()


def _scale(targets: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Returns what is subtracted from targets, and what they are divided by."""
    if standardize:
        return targets.mean(), targets.std().clamp_min(1e-6)
    one = torch.ones((), device=targets.device)
    return 0.0 * one, one


def _standardize(targets: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    return (targets - scale[0]) / scale[1]


def _mse(predicted: Tensor, target: Tensor) -> Tensor:
    return torch.mean((predicted - target) ** 2)
