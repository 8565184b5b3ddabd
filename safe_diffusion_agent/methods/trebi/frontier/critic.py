"""The frontier critic: what the rest of an episode can return and cost, for every trade of the two.

A multiplier m >= 0 is the price of one unit of cost in units of return. The critic's heads are the
return-to-go and the cost-to-go of the behavior that is best for return - m cost, and that
behavior's action, as functions of the observation, the steps that are left, and m. Multipliers are
relative to the spread of the two in the data, so that 1 means the same everywhere.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from safe_diffusion_agent.episodes import Task, discounted_steps
from safe_diffusion_agent.learning.dynamics import BlockedLayers, DynamicsEnsemble
from safe_diffusion_agent.learning.transitions import NStepTarget
from safe_diffusion_agent.methods.trebi.config import ModelConfig
from safe_diffusion_agent.methods.trebi.networks import new_denoiser

# Multipliers that are planned with, and the range of those that are trained.
MULTIPLIERS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.4, 1.0, 2.5, 5.0)
MIN_MULTIPLIER, MAX_MULTIPLIER = 0.0025, 5.0
LOG_STD_RANGE = (-3.0, 1.0)  # of actions, in halves of their range
REWARD_SLACK = 0.02  # rewards may exceed those in the data by this share of their range


class FrontierCritic(nn.Module):
    """Return-to-go, cost-to-go and action of the best behavior for each multiplier.

    The return is between what the smallest and the largest reward of the data sum up to, and the
    cost is not negative unless costs may be, by construction.

    Args:
        obs_dim: O.
        act_dim: A.
        width: Width of both hidden layers.
        max_steps: Steps of a whole episode.
        discount: Of the rewards.
        cost_discount: Of the costs.
        signed_costs: Whether costs may be negative.
        spread: Whether the actor gives a standard deviation of its actions, too.
    """

    reward_low: Tensor
    reward_high: Tensor
    return_scale: Tensor
    cost_scale: Tensor
    action_low: Tensor
    action_high: Tensor
    imitates: Tensor  # 1 for a critic that learned by imitation, else 0
    multipliers: Tensor  # those that are planned with, `(G,)`
    sum_of_ones: Tensor  # what a reward of 1 per step sums up to, for 0 to `max_steps` steps
    cost_shares: Tensor  # the same of a cost, as a share of that of an endless or whole episode

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        width: int,
        max_steps: int,
        discount: float,
        cost_discount: float,
        *,
        signed_costs: bool = False,
        spread: bool = False,
    ):
        super().__init__()
        self.signed_costs, self.spread, self.act_dim = signed_costs, spread, act_dim
        self.max_steps, self.discount, self.cost_discount = max_steps, discount, cost_discount
        self.values = _two_layers(obs_dim + 4, width, 2)
        self.actor = _two_layers(obs_dim + 4, width, act_dim * (2 if spread else 1))
        for name in ("reward_low", "reward_high", "return_scale", "cost_scale"):
            self.register_buffer(name, torch.ones(()))
        for name in ("action_low", "action_high"):
            self.register_buffer(name, torch.zeros(act_dim))
        self.register_buffer("imitates", torch.zeros(()))
        self.register_buffer("multipliers", torch.tensor(MULTIPLIERS), persistent=False)
        steps = torch.arange(max_steps + 1, dtype=torch.float32)
        shares = steps / max_steps
        if cost_discount < 1.0:
            shares = discounted_steps(steps, cost_discount) * (1.0 - cost_discount)
        self.register_buffer("sum_of_ones", discounted_steps(steps, discount), persistent=False)
        self.register_buffer("cost_shares", shares, persistent=False)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Also reads checkpoints from before this buffer."""
        state_dict.setdefault(f"{prefix}imitates", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def multiplier_unit(self) -> Tensor:
        """Returns the return per cost that a relative multiplier of 1 stands for."""
        return self.return_scale / self.cost_scale

    def forward(self, obs: Tensor, steps_left: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
        """Returns return-to-go and cost-to-go, `(N,)` each.

        Args:
            obs: `(N, O)`, normalized.
            steps_left: `(N,)`; 0 gives 0.
            multiplier: `(N,)`, relative.
        """
        outputs = self.values(self._features(obs, steps_left, multiplier))
        slack = REWARD_SLACK * (self.reward_high - self.reward_low)
        low, high = self.reward_low - slack, self.reward_high + slack
        mean_reward = low + (high - low) * torch.sigmoid(outputs[:, 0])
        steps = steps_left.long()
        level = outputs[:, 1] if self.signed_costs else functional.softplus(outputs[:, 1] - 2.0)
        costs = 4.0 * self.cost_scale * self.cost_shares[steps] * level
        return self.sum_of_ones[steps] * mean_reward, costs

    def act(self, obs: Tensor, steps_left: Tensor, multiplier: Tensor) -> Tensor:
        """Returns normalized actions `(N, A)` of the best behavior; arguments as of `forward`."""
        return self._mean(self.actor(self._features(obs, steps_left, multiplier)))

    def log_likelihood(
        self, obs: Tensor, steps_left: Tensor, multiplier: Tensor, actions: Tensor
    ) -> Tensor:
        """Returns the log-likelihood of normalized actions `(N, A)`, up to a constant; `(N,)`.

        Actions are normally distributed around those of the best behavior, without a `spread` by
        a fixed standard deviation. Other arguments as of `forward`.
        """
        outputs = self.actor(self._features(obs, steps_left, multiplier))
        log_std = outputs[:, self.act_dim :].clamp(*LOG_STD_RANGE)
        log_std = log_std if self.spread else torch.zeros_like(actions)
        half_range = (self.action_high - self.action_low) / 2.0
        error = (actions - self._mean(outputs)) / (half_range * log_std.exp())
        return -(0.5 * error**2 + log_std).sum(dim=1)

    def _mean(self, outputs: Tensor) -> Tensor:
        share = 0.5 + 0.5 * torch.tanh(outputs[:, : self.act_dim])
        return self.action_low + (self.action_high - self.action_low) * share

    def _features(self, obs: Tensor, steps_left: Tensor, multiplier: Tensor) -> Tensor:
        share = (steps_left / self.max_steps)[:, None]
        price = (torch.log10(multiplier + 0.2 * MIN_MULTIPLIER) / 2.0)[:, None] + 0.5
        return torch.cat([obs, share, share**2, price, price**2], dim=1)


class FrontierNetworks(nn.Module):
    """A denoiser, one-step models and the frontier critic.

    Args:
        config: Sizes.
        task: Dimensions, time limit and discount.

    Raises:
        ValueError: The task has no time limit.
    """

    def __init__(self, config: ModelConfig, task: Task):
        super().__init__()
        if task.max_episode_steps is None:
            raise ValueError("The frontier needs a dataset whose episodes have a time limit.")
        self.denoiser = new_denoiser(config, task)
        self.dynamics = DynamicsEnsemble(
            task.obs_dim, task.act_dim, config.model_width, config.num_models
        )
        self.critic = FrontierCritic(
            task.obs_dim,
            task.act_dim,
            config.critic_width,
            task.max_episode_steps,
            config.discount or task.cost_discount,
            config.cost_discount or task.cost_discount,
            signed_costs=task.costs_may_be_negative,
            spread=config.actor_spread,
        )


def targets(
    critic: FrontierCritic, target: NStepTarget, steps_left: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns what happened, with what the critic says of the rest: return and cost, `(N,)`."""
    returns, costs = critic(target.next_obs, steps_left - target.num_steps, multipliers)
    return (
        target.returns + target.survival * critic.discount**target.num_steps * returns,
        target.costs + target.survival * critic.cost_discount**target.num_steps * costs,
    )


def random_multipliers(num: int, generator: torch.Generator) -> Tensor:
    """Draws relative multipliers to train with, `(num,)`: log-uniform, and one in twelve is 0."""
    device = generator.device
    uniform = torch.rand(num, generator=generator, device=device)
    spread = math.log(MAX_MULTIPLIER / MIN_MULTIPLIER)
    multipliers = MIN_MULTIPLIER * torch.exp(spread * uniform)
    zero = torch.rand(num, generator=generator, device=device) < 1 / 12
    return torch.where(zero, 0.0, multipliers)


def _two_layers(in_dim: int, width: int, out_dim: int) -> nn.Sequential:
    return BlockedLayers(
        nn.Linear(in_dim, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, out_dim),
    )
