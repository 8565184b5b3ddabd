"""Networks that methods share. States are `(N, S)`: observations, perhaps with more.

Actions are in [-1, 1]. From BCQ (Fujimoto et al. 2019) come the generative model of the data's
actions, the perturbation model and the twin critics; Gaussian policies are as in IQL (Kostrikov et
al. 2022).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LOG_STD_RANGE = (-4.0, 15.0)  # of BCQ's encoder
POLICY_LOG_STD_RANGE = (-5.0, 2.0)
LATENT_LIMIT = 0.5  # BCQ clips the latents it samples with to this


def new_networks(build: Callable[[], nn.Module], seed: int) -> Any:
    """Builds networks whose initial weights are fixed by a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # PyTorch initializes weights from its global generator
        return build()


def mlp(*sizes: int) -> nn.Sequential:
    """Returns linear layers of the given sizes with ReLUs between them."""
    layers: list[nn.Module] = []
    for size, next_size in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(size, next_size), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ActionGenerator(nn.Module):
    """Conditional variational autoencoder of the data's actions: BCQ's G_omega.

    Args:
        state_dim: S.
        act_dim: A; the latent space has 2 A dimensions.
        width: Width of the two hidden layers.
    """

    def __init__(self, state_dim: int, act_dim: int, width: int):
        super().__init__()
        self.latent_dim = 2 * act_dim
        self.encoder = mlp(state_dim + act_dim, width, width, 2 * self.latent_dim)
        self.decoder = mlp(state_dim + self.latent_dim, width, width, act_dim)

    def encode(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and logarithm of the standard deviation of the latents, `(*, 2 A)` each."""
        mean, log_std = self.encoder(torch.cat([states, actions], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def decode(self, states: Tensor, latents: Tensor) -> Tensor:
        """Returns actions of states `(*, S)` and latents `(*, 2 A)`."""
        return torch.tanh(self.decoder(torch.cat([states, latents], dim=-1)))

    def sample(self, states: Tensor, num: int, generator: torch.Generator) -> Tensor:
        """Returns actions like the data's, `(N, num, A)`, for states `(N, S)`."""
        shape = (len(states), num, self.latent_dim)
        latents = torch.randn(shape, generator=generator, device=generator.device)
        latents = latents.to(states.device).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        return self.decode(states[:, None].expand(-1, num, -1), latents)

    def loss(
        self, states: Tensor, actions: Tensor, kl_weight: float, generator: torch.Generator
    ) -> Tensor:
        """Returns reconstruction error plus weighted divergence (BCQ, App. C: weight 1/2)."""
        mean, log_std = self.encode(states, actions)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device)
        reconstructed = self.decode(states, mean + log_std.exp() * noise)
        divergence = latent_divergence(mean, log_std).mean()
        return ((reconstructed - actions) ** 2).mean() + kl_weight * divergence


def latent_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Returns KL(N(mean, std) || N(0, 1)), mean over the dimensions, `(*, D)` to `(*,)`."""
    return 0.5 * (mean**2 + (2 * log_std).exp() - 2 * log_std - 1).mean(dim=-1)


class Perturbation(nn.Module):
    """BCQ's perturbation model: changes an action by at most `limit` (xi_phi, Eq. 12 there).

    Args:
        state_dim: S.
        act_dim: A.
        width: Width of the two hidden layers.
        limit: Phi, as a share of half the action range.
    """

    def __init__(self, state_dim: int, act_dim: int, width: int, limit: float):
        super().__init__()
        self.limit = limit
        self.network = mlp(state_dim + act_dim, width, width, act_dim)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns perturbed actions `(*, A)` of states `(*, S)`."""
        change = torch.tanh(self.network(torch.cat([states, actions], dim=-1)))
        return (actions + self.limit * change).clamp(-1.0, 1.0)


class TwinCritic(nn.Module):
    """Two independent estimates of an action's value.

    Args:
        state_dim: S.
        act_dim: A.
        width: Width of the two hidden layers of each.
    """

    def __init__(self, state_dim: int, act_dim: int, width: int):
        super().__init__()
        sizes = (state_dim + act_dim, width, width, 1)
        self.networks = nn.ModuleList([mlp(*sizes), mlp(*sizes)])

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns values `(2, *)` of states `(*, S)` and actions `(*, A)`."""
        inputs = torch.cat([states, actions], dim=-1)
        first, second = self.networks
        return torch.stack([first(inputs)[..., 0], second(inputs)[..., 0]])

    def loss(self, states: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
        """Returns mean squared error of each against targets `(N,)`, summed."""
        error: Tensor = self(states, actions) - targets
        return (error**2).mean(dim=1).sum()


class GaussianPolicy(nn.Module):
    """Gaussian policies that share all but their last layer.

    The mean is in [-1, 1]; the standard deviation does not depend on the state.

    Args:
        state_dim: S.
        act_dim: A.
        width: Width of the two hidden layers.
        num_heads: Number of policies.
    """

    def __init__(self, state_dim: int, act_dim: int, width: int, num_heads: int = 1):
        super().__init__()
        self.trunk = nn.Sequential(mlp(state_dim, width, width), nn.ReLU())
        self.means = nn.ModuleList([nn.Linear(width, act_dim) for _ in range(num_heads)])
        self.log_std = nn.Parameter(torch.zeros(num_heads, act_dim))

    def forward(self, states: Tensor) -> Tensor:
        """Returns mean actions `(N, heads, A)` of states `(N, S)`."""
        features = self.trunk(states)
        return torch.stack([torch.tanh(mean(features)) for mean in self.means], dim=1)

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns log-density of actions `(N, A)` under each policy, `(N, heads)`."""
        std = self.log_std.clamp(*POLICY_LOG_STD_RANGE).exp()
        normal = torch.distributions.Normal(self(states), std, validate_args=False)
        log_prob: Tensor = normal.log_prob(actions[:, None]).sum(dim=-1)
        return log_prob

    def sample(self, states: Tensor, num: int, generator: torch.Generator) -> Tensor:
        """Draws actions of the first policy, `(N, num, A)`, clipped to [-1, 1], with gradients."""
        mean = self(states)[:, :1].expand(-1, num, -1)
        std = self.log_std[0].clamp(*POLICY_LOG_STD_RANGE).exp()
        noise = torch.randn(mean.shape, generator=generator, device=generator.device)
        actions: Tensor = (mean + std * noise).clamp(-1.0, 1.0)
        return actions


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Lets gradients pass through a module without reaching its own parameters."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def move_towards(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Moves a target network: (1 - rate) target + rate source."""
    for parameter, new in zip(target.parameters(), source.parameters(), strict=True):
        parameter.lerp_(new, rate)
