"""One-step models of the environment, and what becomes of actions in them.

The models are an ensemble of small networks: from an observation and an action to the next
observation, the reward, the cost, and whether the episode terminates (ensembles as in Chua et al.
2018, without their variance). Everything is normalized, except rewards and costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BLOCK_ROWS = 2048  # of `BlockedLayers`

# Actions `(N, A)` for observations `(N, O)` at step t of a rollout.
StepPolicy = Callable[[Tensor, int], Tensor]


class BlockedLayers(nn.Sequential):
    """Layers that take many rows in blocks, so that what is between them stays in the cache.

    Only on a CPU, where no gradient is wanted: of tens of thousands of rows, each layer's result
    would go to memory and come back, which takes longer than the arithmetic.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., N, in)` to `(..., N, out)`."""
        whole = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
        if whole or x.shape[-2] <= BLOCK_ROWS:
            result: Tensor = super().forward(x)
            return result
        blocks = x.split(BLOCK_ROWS, dim=-2)
        return torch.cat([super(BlockedLayers, self).forward(block) for block in blocks], dim=-2)


class MemberLinear(nn.Module):
    """One linear layer for each member of an ensemble: `(M, N, in)` to `(M, N, out)`."""

    def __init__(self, num_members: int, in_dim: int, out_dim: int):
        super().__init__()
        bound = 1.0 / math.sqrt(in_dim)
        self.weight = nn.Parameter(
            torch.empty(num_members, in_dim, out_dim).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.zeros(num_members, 1, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Applies each member's layer to its own rows."""
        return torch.baddbmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class Transition:
    """What one step leads to.

    Attributes:
        observation: `(N, O)`, normalized.
        reward: `(N,)`.
        cost: `(N,)`; not negative, unless costs of the data are.
        survival: `(N,)`, probability that the episode does not terminate.
    """

    observation: Tensor
    reward: Tensor
    cost: Tensor
    survival: Tensor


class DynamicsEnsemble(nn.Module):
    """M networks with two hidden layers, which predict together.

    The outputs are the change of the observation, the reward and the cost, standardized by the
    buffers, and the logit of termination. Predicted observations stay within the data's range.
    Where every cost of the data is 0 or the same (an event), its output is the event's logit.

    Args:
        obs_dim: O.
        act_dim: A.
        width: Width of both hidden layers.
        num_members: M.

    Attributes:
        trusted_steps: Steps for which rollouts are good enough to judge plans by.
    """

    target_shift: Tensor
    target_scale: Tensor
    obs_low: Tensor
    obs_high: Tensor
    terminates: Tensor
    event_cost: Tensor
    cost_low: Tensor
    trusted_steps: Tensor

    def __init__(self, obs_dim: int, act_dim: int, width: int, num_members: int):
        super().__init__()
        self.obs_dim, self.num_members = obs_dim, num_members
        self.network = BlockedLayers(
            MemberLinear(num_members, obs_dim + act_dim, width),
            nn.SiLU(),
            MemberLinear(num_members, width, width),
            nn.SiLU(),
            MemberLinear(num_members, width, obs_dim + 3),
        )
        self.register_buffer("target_shift", torch.zeros(obs_dim + 2))
        self.register_buffer("target_scale", torch.ones(obs_dim + 2))
        self.register_buffer("obs_low", torch.full((obs_dim,), -torch.inf))
        self.register_buffer("obs_high", torch.full((obs_dim,), torch.inf))
        self.register_buffer("terminates", torch.zeros(()))  # 1 if some of the data's episodes do
        self.register_buffer("event_cost", torch.zeros(()))  # 0 where costs take other values, too
        self.register_buffer("cost_low", torch.zeros(()))  # below 0 where costs may be negative
        self.register_buffer("trusted_steps", torch.ones((), dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Also reads checkpoints from before these buffers."""
        for name in ("event_cost", "cost_low"):
            state_dict.setdefault(f"{prefix}{name}", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Returns raw outputs of all members, `(M, N, O + 3)`, for `(N, O)` or `(M, N, O)`."""
        x = torch.cat([obs, actions], dim=-1)
        result: Tensor = self.network(x.expand(self.num_members, -1, -1) if x.dim() == 2 else x)
        return result

    def step(self, obs: Tensor, actions: Tensor, members: Tensor | None = None) -> Transition:
        """Predicts one step from `obs` `(N, O)` with `actions` `(N, A)`.

        Args:
            obs: Normalized observations.
            actions: Normalized actions.
            members: `(N,)`, which member predicts each row. None: the mean of all.
        """
        raw = self(obs, actions)
        if members is None:
            output = raw.mean(dim=0)
        else:
            output = raw[members, torch.arange(len(obs), device=obs.device)]
        values = self.target_shift + self.target_scale * output[:, :-1]
        change, reward, cost = values.split([self.obs_dim, 1, 1], dim=1)
        expected = self.event_cost * torch.sigmoid(output[:, -2:-1])
        cost = torch.where(self.event_cost > 0, expected, cost.clamp_min(self.cost_low))
        return Transition(
            observation=(obs + change).clamp(self.obs_low, self.obs_high),
            reward=reward[:, 0],
            cost=cost[:, 0],
            survival=1.0 - self.terminates * torch.sigmoid(output[:, -1]),
        )


@dataclass(frozen=True)
class ModelRollout:
    """N imagined pieces of episodes, after every number of steps: index j is after j + 1 of them.

    Attributes:
        actions: `(N, n, A)`, normalized.
        observations: `(N, n, O)`, normalized; the last ones.
        returns: `(N, n)`, discounted sum of the rewards.
        costs: `(N, n)`, discounted sum of the costs.
        survival: `(N, n)`, probability that the episode still runs.
    """

    actions: Tensor
    observations: Tensor
    returns: Tensor
    costs: Tensor
    survival: Tensor

    def after(self, num_steps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns return, cost, survival `(N,)`, observation `(N, O)` after `(N,)` steps, >= 1."""
        at = (torch.arange(len(num_steps), device=num_steps.device), num_steps.long() - 1)
        return self.returns[at], self.costs[at], self.survival[at], self.observations[at]

    def trajectories(self, start: Tensor) -> Tensor:
        """Returns trajectories `(N, n, A + O)` that start in the states `(B, O)`, N / B in each."""
        first = start.repeat_interleave(len(self.actions) // len(start), 0)[:, None]
        observations = torch.cat([first, self.observations[:, :-1]], dim=1)
        return torch.cat([self.actions, observations], dim=-1)


def imagine(
    dynamics: DynamicsEnsemble,
    obs: Tensor,
    policy: StepPolicy,
    num_steps: int,
    *,
    discount: float,
    cost_discount: float,
) -> ModelRollout:
    """Lets a policy act in the models for some steps.

    Args:
        dynamics: The model.
        obs: `(N, O)`, normalized.
        policy: Gives the normalized actions.
        num_steps: n.
        discount: Of the rewards.
        cost_discount: Of the costs.
    """
    returns, costs = torch.zeros_like(obs[:, 0]), torch.zeros_like(obs[:, 0])
    survival = torch.ones_like(returns)
    steps: list[tuple[Tensor, ...]] = []
    for t in range(num_steps):
        actions = policy(obs, t)
        transition = dynamics.step(obs, actions)
        obs = transition.observation
        returns = returns + discount**t * survival * transition.reward
        costs = costs + cost_discount**t * survival * transition.cost
        survival = survival * transition.survival
        steps.append((actions, obs, returns, costs, survival))
    return ModelRollout(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))
