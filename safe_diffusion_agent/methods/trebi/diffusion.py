"""The diffusion model: trajectories, the noise on them, and the guided reverse process.

A trajectory is H steps of actions and observations in one tensor `(N, H, D)`. Of the D = A + O
dimensions the actions come first, as in Diffuser. All are normalized. What lies beyond the time
limit of the episode can be masked with zeros.

With a noise schedule beta_i and alpha_bar_i = prod_{j <= i} (1 - beta_j), and i = 0 .. T-1:

    forward   tau^i = sqrt(alpha_bar_i) tau + sqrt(1 - alpha_bar_i) noise
    reverse   tau^{i-1} ~ N(mu_theta(tau^i, i), Sigma^i),
              mu_theta = A_i denoiser(tau^i, i) + B_i tau^i,    Sigma^i = V_i I

A_i, B_i and V_i are those of the posterior q(tau^{i-1} | tau^i, tau) (Ho et al. 2020, Eq. 6-7); the
denoiser predicts the clean trajectory. Guidance moves the mean by V_i g (Lin et al. 2023, Eq. 1).

Nothing here knows what a budget is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, mean_and_std

Denoiser = Callable[[Tensor, Tensor], Tensor]
Guide = Callable[[Tensor, Tensor], Tensor]
Condition = Callable[[Tensor], Tensor]

# Moves trajectories under guidance: `(x, diffusion_step, variance, guide, repeats, condition)` to
# where the denoiser is asked, and what is added to the mean.
GuidedStep = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Normalizer:
    """Gaussian normalization, `(x - mean) / std`, as in Diffuser; all tensors are `(D,)`.

    Attributes:
        mean: Mean of each dimension, actions first, in environment units.
        std: Standard deviation; 1 for constant dimensions.
        low: Smallest valid normalized value: the bound of the action space, or the smallest
            observation in the data.
        high: Largest valid normalized value.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def fit(cls, episodes: Episodes) -> "Normalizer":
        """Returns the normalizer of a dataset."""
        observed = np.asarray(episodes.observations, np.float64)
        parts = zip(mean_and_std(episodes.actions), mean_and_std(observed), strict=True)
        mean, std = (np.concatenate(part) for part in parts)
        low = np.concatenate([episodes.action_low.astype(np.float64), observed.min(axis=0)])
        high = np.concatenate([episodes.action_high.astype(np.float64), observed.max(axis=0)])
        arrays = (mean, std, (low - mean) / std, (high - mean) / std)
        return cls(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def to(self, device: torch.device | str) -> "Normalizer":
        """Returns the same on another device."""
        return Normalizer(*(t.to(device) for t in (self.mean, self.std, self.low, self.high)))

    def observations(self, observations: Tensor) -> Tensor:
        """Normalizes observations `(*, O)`."""
        return (observations - self.mean[-observations.shape[-1] :]) / (
            self.std[-observations.shape[-1] :]
        )

    def actions(self, actions: Tensor) -> Tensor:
        """Normalizes actions `(*, A)`."""
        return (actions - self.mean[: actions.shape[-1]]) / self.std[: actions.shape[-1]]

    def trajectories(self, trajectories: Tensor) -> Tensor:
        """Normalizes trajectories `(*, D)`, actions first."""
        return (trajectories - self.mean) / self.std

    def to_environment(self, x: Tensor, dims: slice = slice(None)) -> Tensor:
        """Undoes the normalization of the dimensions `dims`, `(*, number of them)`."""
        return x * self.std[dims] + self.mean[dims]


def time_limit_mask(remaining_steps: Tensor, horizon: int, act_dim: int, dim: int) -> Tensor:
    """Returns 1 for entries of trajectories before the time limit, 0 for others; `(B, H, D)`.

    With r steps remaining `(B,)`, there are actions at positions k < r and observations at k <= r.
    """
    positions = torch.arange(horizon, device=remaining_steps.device)
    remaining = remaining_steps[:, None]
    has_action = (positions < remaining)[:, :, None].expand(-1, -1, act_dim)
    has_observation = (positions <= remaining)[:, :, None].expand(-1, -1, dim - act_dim)
    return torch.cat([has_action, has_observation], dim=-1).to(torch.float32)


def starting_in(first_observation: Tensor, mask: Tensor | float = 1.0) -> Condition:
    """Returns what imposes first observations `(N, O)`, and zeros where the mask has them."""
    act_dims = -first_observation.shape[1]

    def condition(x: Tensor) -> Tensor:
        x = x * mask
        x[:, 0, act_dims:] = first_observation
        return x

    return condition


@dataclass(frozen=True)
class NoiseSchedule:
    """Coefficients of the diffusion process.

    Attributes:
        diffusion_steps: `(T,)`, what the networks are told at each step, int64; 0 .. T-1 unless
            `respaced`.
        alpha_bar: `(T,)`, share of signal variance that is left at each step, float32.
        rows: Step, as tensor `(1,)` and as number, A_i, weight of the predicted clean trajectory in
            the posterior mean, B_i, that of the noised one, and V_i, posterior variance, 0 at
            i = 0: numbers wait for no device.
    """

    diffusion_steps: Tensor
    alpha_bar: Tensor
    rows: list[tuple[Tensor, int, float, float, float]]

    @classmethod
    def cosine(cls, num_steps: int, device: torch.device | str = "cpu") -> "NoiseSchedule":
        """Returns the cosine schedule (Nichol & Dhariwal 2021) with s = 0.008 and beta <= 0.999."""
        s = 0.008
        grid = torch.linspace(0.0, num_steps, num_steps + 1, dtype=torch.float64) / num_steps
        signal = torch.cos((grid + s) / (1.0 + s) * math.pi / 2.0) ** 2
        betas = (1.0 - signal[1:] / signal[:-1]).clamp(0.0, 0.999)
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        return cls._of(torch.arange(num_steps), alpha_bar, torch.device(device))

    @classmethod
    def _of(
        cls, diffusion_steps: Tensor, alpha_bar: Tensor, device: torch.device
    ) -> "NoiseSchedule":
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        betas = 1.0 - alpha_bar / previous
        coefficients = (
            betas * previous.sqrt() / (1.0 - alpha_bar),
            (1.0 - previous) * (1.0 - betas).sqrt() / (1.0 - alpha_bar),
            betas * (1.0 - previous) / (1.0 - alpha_bar),
        )
        numbers = [column.to(torch.float32).tolist() for column in coefficients]
        steps = diffusion_steps.to(device)
        rows = list(zip(steps.split(1), diffusion_steps.tolist(), *numbers, strict=True))
        return cls(steps, alpha_bar.to(device, torch.float32), rows)

    def respaced(self, num_steps: int) -> "NoiseSchedule":
        """Returns the same process, undone in fewer and longer steps (Nichol & Dhariwal 2021).

        The steps are spread evenly from the noisiest one down: none is spent on trajectories
        that are almost clean ("trailing", Lin et al. 2024).

        Args:
            num_steps: At least 1, at most T.
        """
        if num_steps == self.num_steps:
            return self
        kept = self.num_steps - self.num_steps / num_steps * torch.arange(num_steps).flip(0)
        kept = kept.round().long() - 1
        alpha_bar = self.alpha_bar.cpu().double()[kept]
        return self._of(self.diffusion_steps.cpu()[kept], alpha_bar, self.alpha_bar.device)

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bar)

    def draw_noise(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Returns all noise of a reverse process, `(S, N, H, D)`: one draw at first, one per step.

        Args:
            shape: (N, H, D).
            generator: On any device; a generator on the CPU gives the same noise to every device.
        """
        num_draws = 1 + sum(variance > 0.0 for *_, variance in self.rows)
        noise = torch.empty(num_draws, *shape, device=generator.device)
        for draw in noise:
            draw.normal_(generator=generator)
        return noise.to(self.alpha_bar.device)

    def add_noise(self, clean: Tensor, diffusion_step: Tensor, noise: Tensor) -> Tensor:
        """Noises trajectories: `clean` and `noise` `(N, H, D)` at steps `(N,)` -> `(N, H, D)`."""
        alpha_bar = self.alpha_bar[diffusion_step][:, None, None]
        return alpha_bar.sqrt() * clean + (1.0 - alpha_bar).sqrt() * noise


def paper_step(
    x: Tensor, step: Tensor, variance: float, guide: Guide, repeats: int, condition: Condition
) -> tuple[Tensor, Tensor]:
    """Takes g at tau^i, and adds V_i g to the mean (Lin et al. 2023, Alg. 1, line 11)."""
    del condition
    shift = torch.zeros_like(x)
    for _ in range(repeats):
        shift = shift + variance * guide(x + shift, step)
    return x, shift


def reference_step(
    x: Tensor, step: Tensor, variance: float, guide: Guide, repeats: int, condition: Condition
) -> tuple[Tensor, Tensor]:
    """Adds V_i g to tau^i before the mean is computed, as the reference code does."""
    for _ in range(repeats):
        x = condition(x + variance * guide(x, step))
    return x, torch.zeros_like(x)


GUIDED_STEPS: dict[str, GuidedStep] = {"mean": paper_step, "input": reference_step}


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    condition: Condition,
    guide: Guide | None = None,
    *,
    guided_step: GuidedStep = paper_step,
    guidance_repeats: int = 1,
    num_unguided_steps: int = 0,
) -> tuple[Tensor, Tensor]:
    """Runs the reverse process (Lin et al. 2023, Alg. 1, lines 3-13).

    With the noise given, it is a function of tensors which waits for none of their values: it can
    be compiled, or recorded and replayed.

    Args:
        denoiser: Maps noised trajectories `(N, H, D)` and a diffusion step `(1,)` to clean ones.
        schedule: Coefficients, on the device of the trajectories.
        noise: `(S, N, H, D)`, as the schedule draws it.
        condition: Imposes what is known of the trajectories; applied after every change (line 12).
        guide: Maps trajectories and a diffusion step to the gradient g. None samples unguided.
        guided_step: How g moves the trajectories: `paper_step` or `reference_step`.
        guidance_repeats: How often per step, each time from the moved trajectories.
        num_unguided_steps: The last steps i < num_unguided_steps take no guidance.

    Returns:
        The trajectories, and the noised ones before the last denoising; `(N, H, D)` each.
    """
    draws = iter(noise)
    x = noised = condition(next(draws))
    for step, i, clean_weight, noised_weight, variance in reversed(schedule.rows):
        noised, shift = x, torch.zeros_like(x)
        if guide is not None and variance > 0.0 and i >= num_unguided_steps:
            noised, shift = guided_step(x, step, variance, guide, guidance_repeats, condition)
        clean = denoiser(noised, step)
        mean = clean_weight * clean + noised_weight * noised + shift
        if variance > 0.0:
            mean = mean + math.sqrt(variance) * next(draws)
        x = condition(mean)
    return x, noised
