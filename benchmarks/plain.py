"""The plain way: how the reference code plans and trains, written again for comparison.

A plan (its `GuidedPolicy` and `n_step_guided_and_constrained_p_sample`): cost and reward have a
gradient pass each, one after the other; they are also taken at the last steps, where the result is
thrown away; the number of violating candidates is looked at in every step. One state at a time.

A training (its `Trainer`, three times): samples are cut out of the episodes one by one by a
`Dataset`, collated by a `DataLoader`; every network has a loop, batches and noise of its own; the
average is updated weight by weight.

The networks are ours, which have the same layers and sizes. Nothing here is used by the package.
"""

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

NUM_ACCUMULATED = 2  # batches per optimizer step


def cosine_schedule(num_steps: int, device: torch.device) -> SimpleNamespace:
    """Coefficients of the diffusion process, `(T,)` each (Nichol & Dhariwal 2021)."""
    grid = torch.linspace(0, num_steps, num_steps + 1, dtype=torch.float64) / num_steps
    signal = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - signal[1:] / signal[:-1]).clamp(0, 0.999)
    left = torch.cumprod(1 - betas, dim=0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), left[:-1]])
    columns = {
        "alpha_bar": left,
        "variance": betas * (1 - before) / (1 - left),
        "clean_weight": betas * before.sqrt() / (1 - left),
        "noised_weight": (1 - before) * (1 - betas).sqrt() / (1 - left),
    }
    return SimpleNamespace(**{name: c.float().to(device) for name, c in columns.items()})


class PlainPlanner:
    """Plans for one state, as the reference code does.

    Args:
        networks: Denoiser, reward and cost.
        shape: (K, H, D) of the candidates.
        act_dim: A.
        num_steps: T.
        num_repeats: Guidance passes per step.
        num_thrown_away: Last steps whose gradient is computed and multiplied by zero.
        scale: alpha.
        penalty: n.
    """

    def __init__(
        self,
        networks: Any,
        shape: tuple[int, int, int],
        act_dim: int,
        num_steps: int,
        *,
        num_repeats: int,
        num_thrown_away: int,
        scale: float,
        penalty: float,
    ):
        self.networks, self.shape, self.act_dim = networks, shape, act_dim
        self.device = next(networks.parameters()).device
        self.schedule, self.num_steps = cosine_schedule(num_steps, self.device), num_steps
        self.num_repeats, self.num_thrown_away = num_repeats, num_thrown_away
        self.scale, self.penalty = scale, penalty

    @torch.no_grad()
    def act(self, obs: np.ndarray, budget: float) -> np.ndarray:
        conditions = torch.tensor(obs, dtype=torch.float32, device=self.device)
        conditions = conditions.repeat(self.shape[0], 1)
        budgets = torch.full((self.shape[0],), budget, device=self.device)
        x = self._impose(torch.randn(self.shape, device=self.device), conditions)
        for i in reversed(range(self.num_steps)):
            step = torch.full((self.shape[0],), i, dtype=torch.long, device=self.device)
            for _ in range(self.num_repeats):
                costs, cost_gradient = self._gradient(self.networks.cost, x, step)
                returns, gradient = self._gradient(self.networks.reward, x, step)
                over = costs > budgets
                _ = int(over.sum())  # what the reference code prints
                gradient = gradient - self.penalty * over[:, None, None] * cost_gradient
                gradient = self._of(self.schedule.variance, step) * gradient
                gradient[step < self.num_thrown_away] = 0.0
                x = self._impose(x + self.scale * gradient, conditions)
            clean = self.networks.denoiser(x, step)
            mean = self._of(self.schedule.clean_weight, step) * clean
            mean = mean + self._of(self.schedule.noised_weight, step) * x
            noise = torch.randn(self.shape, device=self.device)
            noise[step == 0] = 0.0
            x = mean + self._of(self.schedule.variance, step).sqrt() * noise
            x = self._impose(x, conditions)
        scores = torch.where(over, -costs if over.all() else returns - 1e8, returns)
        return x[scores.argsort(descending=True)][0, 0, : self.act_dim].cpu().numpy()

    def _gradient(self, value: nn.Module, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            values = value(x, step)[:, 0]
            (gradient,) = torch.autograd.grad([values.sum()], [x])
        return values.detach(), gradient

    def _impose(self, x: Tensor, conditions: Tensor) -> Tensor:
        x[:, 0, self.act_dim :] = conditions.clone()
        return x

    def _of(self, coefficients: Tensor, step: Tensor) -> Tensor:
        return coefficients.gather(0, step).reshape(-1, 1, 1)


class PlainDataset(Dataset):
    """Windows `(H, D)` of episodes of one length, cut out and summed up when asked for."""

    def __init__(self, rows: np.ndarray, rewards: np.ndarray, length: int, horizon: int):
        self.episodes = rows.reshape(-1, length, rows.shape[1])
        self.rewards = rewards.reshape(-1, length)
        self.horizon, self.discounts = horizon, 0.99 ** np.arange(length)
        starts = range(length - horizon + 1)
        self.indices = [
            (episode, start) for episode in range(len(rows) // length) for start in starts
        ]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[int, np.ndarray], np.ndarray]:
        episode, start = self.indices[index]
        trajectory = self.episodes[episode, start : start + self.horizon]
        rewards = self.rewards[episode, start:]
        value = (self.discounts[: len(rewards)] * rewards).sum()
        return trajectory, {0: trajectory[0]}, np.array([value], np.float32)


class PlainTraining:
    """Three trainings, each with its own loader and Adam; `step` makes one step of each."""

    def __init__(self, networks: Any, dataset: PlainDataset, act_dim: int, config):
        self.networks = [networks.denoiser, networks.reward, networks.cost]
        self.averages = [copy.deepcopy(network) for network in self.networks]
        self.optimizers = [torch.optim.Adam(n.parameters(), lr=2e-4) for n in self.networks]
        batch_size = config.training.batch_size // NUM_ACCUMULATED
        self.batches = [self._cycle(dataset, batch_size) for _ in self.networks]
        self.device = next(networks.parameters()).device
        self.schedule = cosine_schedule(config.model.diffusion_steps, self.device)
        self.act_dim, self.config, self.num_done = act_dim, config.training, 0

    def step(self) -> None:
        self.num_done += 1
        for network, average, optimizer, batches in zip(
            self.networks, self.averages, self.optimizers, self.batches, strict=True
        ):
            for _ in range(NUM_ACCUMULATED):
                loss = self._loss(network, *next(batches)) / NUM_ACCUMULATED
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if self.num_done % self.config.ema_interval == 0:
                for old, new in zip(average.parameters(), network.parameters(), strict=True):
                    old.data = 0.995 * old.data + 0.005 * new.data

    def _loss(self, network: nn.Module, clean: Tensor, conditions: dict, value: Tensor) -> Tensor:
        clean, value, first = (t.to(self.device) for t in (clean, value, conditions[0]))
        left = self.schedule.alpha_bar
        step = torch.randint(0, len(left), (len(clean),), device=self.device)
        share = left[step][:, None, None]
        noised = share.sqrt() * clean + (1 - share).sqrt() * torch.randn_like(clean)
        noised[:, 0, self.act_dim :] = first[:, self.act_dim :]
        predicted = network(noised, step)
        target = clean if predicted.shape == clean.shape else value
        return ((predicted - target) ** 2).mean()

    @staticmethod
    def _cycle(dataset: PlainDataset, batch_size: int):
        while True:
            yield from DataLoader(dataset, batch_size=batch_size, shuffle=True)
