"""The diffusion model: trajectories, the noise on them, and the guided reverse process.

A trajectory is H steps of actions and observations in one tensor `(N, H, D)`. Of the D = A + O
dimensions the actions come first, as in Diffuser. All are normalised. What lies beyond the time
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
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
Guide = Callable[[Tensor, Tensor], Tensor]

# A dimension that varies by less than this, relative to its mean, is treated as constant: dividing
# by its standard deviation would only amplify rounding errors.
RELATIVE_STD_FLOOR = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """Gaussian normalisation, `(x - mean) / std`, as in Diffuser; all tensors are `(D,)`.

    Attributes:
        mean: Mean of each dimension, actions first, in environment units.
        std: Standard deviation; 1 for constant dimensions.
        low: Smallest valid normalised value: the bound of the action space, or the smallest
            observation in the data.
        high: Largest valid normalised value.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def fit(
        cls,
        actions: npt.ArrayLike,
        observations: npt.ArrayLike,
        action_low: npt.ArrayLike,
        action_high: npt.ArrayLike,
    ) -> "Normalizer":
        """Fits to `actions` `(N, A)` and `observations` `(M, O)`; the bounds are `(A,)`."""
        parts = [np.asarray(actions, np.float64), np.asarray(observations, np.float64)]
        mean = np.concatenate([part.mean(axis=0) for part in parts])
        std = np.concatenate([part.std(axis=0) for part in parts])
        std[std <= RELATIVE_STD_FLOOR * np.maximum(np.abs(mean), 1.0)] = 1.0
        low = np.concatenate([np.asarray(action_low, np.float64), parts[1].min(axis=0)])
        high = np.concatenate([np.asarray(action_high, np.float64), parts[1].max(axis=0)])
        arrays = (mean, std, (low - mean) / std, (high - mean) / std)
        return cls(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def to(self, device: torch.device | str) -> "Normalizer":
        """The same on another device."""
        return Normalizer(*(t.to(device) for t in (self.mean, self.std, self.low, self.high)))

    def normalize(self, x: Tensor, dims: slice = slice(None)) -> Tensor:
        """Normalises `x` `(*, number of dims)`, whose last axis holds the dimensions `dims`."""
        return (x - self.mean[dims]) / self.std[dims]

    def observations(self, observations: Tensor) -> Tensor:
        """Normalises observations `(*, O)`, which are the last dimensions."""
        return self.normalize(observations, slice(-observations.shape[-1], None))

    def actions(self, actions: Tensor) -> Tensor:
        """Normalises actions `(*, A)`, which are the first dimensions."""
        return self.normalize(actions, slice(actions.shape[-1]))

    def unnormalize(self, x: Tensor, dims: slice = slice(None)) -> Tensor:
        """Undoes `normalize`."""
        return x * self.std[dims] + self.mean[dims]


def time_limit_mask(remaining_steps: Tensor, horizon: int, act_dim: int, dim: int) -> Tensor:
    """Which entries of trajectories lie before the time limit, `(B, H, D)` of zeros and ones.

    With r steps remaining `(B,)`, there are actions at positions k < r and observations at k <= r.
    """
    positions = torch.arange(horizon, device=remaining_steps.device)
    remaining = remaining_steps[:, None]
    has_action = (positions < remaining)[:, :, None].expand(-1, -1, act_dim)
    has_observation = (positions <= remaining)[:, :, None].expand(-1, -1, dim - act_dim)
    return torch.cat([has_action, has_observation], dim=-1).to(torch.float32)


@dataclass(frozen=True)
class Schedule:
    """Coefficients of the diffusion process, each `(T,)`, float32 but for the first.

    Attributes:
        diffusion_steps: What the networks are told at each step, int64; 0 .. T-1 unless `respaced`.
        alpha_bar: Share of signal variance that is left at each step.
        clean_weight: A_i, weight of the predicted clean trajectory in the posterior mean.
        noised_weight: B_i, weight of the noised trajectory in the posterior mean.
        variance: V_i, posterior variance; 0 at i = 0.
        rows: Step, as tensor `(1,)` and as number, A_i, B_i and V_i: numbers wait for no device.
    """

    diffusion_steps: Tensor
    alpha_bar: Tensor
    clean_weight: Tensor
    noised_weight: Tensor
    variance: Tensor
    rows: list[tuple[Tensor, int, float, float, float]]

    @classmethod
    def cosine(cls, num_steps: int, device: torch.device | str = "cpu") -> "Schedule":
        """The cosine schedule (Nichol & Dhariwal 2021) with s = 0.008 and beta <= 0.999."""
        s = 0.008
        grid = torch.linspace(0.0, num_steps, num_steps + 1, dtype=torch.float64) / num_steps
        signal = torch.cos((grid + s) / (1.0 + s) * math.pi / 2.0) ** 2
        betas = (1.0 - signal[1:] / signal[:-1]).clamp(0.0, 0.999)
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        return cls._of(torch.arange(num_steps), alpha_bar, torch.device(device))

    @classmethod
    def _of(cls, diffusion_steps: Tensor, alpha_bar: Tensor, device: torch.device) -> "Schedule":
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        betas = 1.0 - alpha_bar / previous
        columns = [
            column.to(torch.float32)
            for column in (
                alpha_bar,
                betas * previous.sqrt() / (1.0 - alpha_bar),
                (1.0 - previous) * (1.0 - betas).sqrt() / (1.0 - alpha_bar),
                betas * (1.0 - previous) / (1.0 - alpha_bar),
            )
        ]
        numbers = [column.tolist() for column in (diffusion_steps, *columns[1:])]
        steps = diffusion_steps.to(device)
        rows = list(zip(steps.split(1), *numbers, strict=True))
        alpha_bar, clean_weight, noised_weight, variance = (c.to(device) for c in columns)
        return cls(steps, alpha_bar, clean_weight, noised_weight, variance, rows)

    def respaced(self, num_steps: int) -> "Schedule":
        """The same forward process, undone in fewer and longer steps (Nichol & Dhariwal 2021).

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
        """All noise of a reverse process, `(S, N, H, D)`: one draw to begin with, one per step.

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
        """Forward process: `clean` and `noise` `(N, H, D)` at steps `(N,)` -> `(N, H, D)`."""
        alpha_bar = self.alpha_bar[diffusion_step][:, None, None]
        return alpha_bar.sqrt() * clean + (1.0 - alpha_bar).sqrt() * noise


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Tensor,
    condition: Callable[[Tensor], Tensor],
    guide: Guide | None = None,
    *,
    guidance_on: Literal["mean", "input"] = "mean",
    guidance_repeats: int = 1,
    num_unguided_steps: int = 0,
) -> tuple[Tensor, Tensor]:
    """Runs the reverse process (Lin et al. 2023, Alg. 1, lines 3-13).

    With the noise given, it is a function of tensors which waits for none of their values: it can
    be compiled, or recorded and replayed (see `execution`).

    Args:
        denoiser: Maps noised trajectories `(N, H, D)` and a diffusion step `(1,)` to clean ones.
        schedule: Coefficients, on the device of the trajectories.
        noise: `(S, N, H, D)`, see `Schedule.draw_noise`.
        condition: Imposes what is known of the trajectories; applied after every change (line 12).
        guide: Maps trajectories and a diffusion step to the gradient g. None samples unguided.
        guidance_on: `"mean"`: g is taken at tau^i and V_i g added to the mean (the paper, line 11).
            `"input"`: V_i g is added to tau^i before the mean is computed (the reference code).
        guidance_repeats: How often that is done per step, each time from the moved trajectories.
        num_unguided_steps: The last steps i < num_unguided_steps take no guidance.

    Returns:
        The trajectories, and the noised ones before the last denoising; `(N, H, D)` each.
    """
    draws = iter(noise)
    x = noised = condition(next(draws))
    for diffusion_step, i, clean_weight, noised_weight, variance in reversed(schedule.rows):
        guided = guide is not None and variance > 0.0 and i >= num_unguided_steps
        noised, shift = x, torch.zeros_like(x)
        for _ in range(guidance_repeats if guided else 0):
            assert guide is not None
            at = noised if guidance_on == "input" else noised + shift
            step = variance * guide(at, diffusion_step)
            if guidance_on == "input":
                noised = condition(noised + step)
            else:
                shift = shift + step
        clean = denoiser(noised, diffusion_step)
        mean = clean_weight * clean + noised_weight * noised + shift
        if variance > 0.0:
            mean = mean + math.sqrt(variance) * next(draws)
        x = condition(mean)
    return x, noised
