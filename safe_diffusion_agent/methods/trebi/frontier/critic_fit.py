"""Trains the frontier critic.

It learns by n-step temporal differences from real pieces of episodes and from imagined branches.
Both of its value heads are regressed on the same target behavior, weighted by an expectile
(Kostrikov et al. 2022, Eq. 5) of the combined value return - m cost. Its actor imitates first
actions, weighted by the exponential of their advantage (Nair et al. 2020).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble
from safe_diffusion_agent.learning.transitions import Backup, Pieces
from safe_diffusion_agent.methods.trebi.diffusion import Denoiser, Schedule, sample
from safe_diffusion_agent.methods.trebi.frontier.branches import Brancher, Branches
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic, random_multipliers
from safe_diffusion_agent.methods.trebi.frontier_config import FrontierConfig

MAX_ADVANTAGE_WEIGHT = 20.0
ADVANTAGE_SHARPNESS = 2.0  # per standard deviation of the advantages in the batch
ACTOR_WEIGHT = 0.1
COST_EMPHASIS = 2.0  # errors of the cost count this much more than those of the return


class CriticTraining(nn.Module):
    """The critic in training: itself, the slow copy that targets come from, and the step."""

    steps: Tensor

    def __init__(self, critic: FrontierCritic):
        super().__init__()
        self.critic = critic
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


@dataclass(frozen=True)
class Imagination:
    """What branches come from beside the critic.

    Attributes:
        dynamics: One-step models.
        denoiser: The diffusion model, clipped.
        schedule: Its schedule.
        horizon: H of its trajectories.
        num_steps: Longest branch; at most H.
    """

    dynamics: DynamicsEnsemble
    denoiser: Denoiser
    schedule: Schedule
    horizon: int
    num_steps: int

    def plans(self, obs: Tensor, act_dim: int, generator: torch.Generator) -> Tensor:
        """Actions `(S, n, A)` of one trajectory of the diffusion model from each observation."""

        def condition(x: Tensor) -> Tensor:
            x = x.clone()
            x[:, 0, act_dim:] = obs
            return x

        shape = (len(obs), self.horizon, act_dim + obs.shape[1])
        noise = self.schedule.draw_noise(shape, generator)
        trajectories, _ = sample(self.denoiser, self.schedule, noise, condition)
        return trajectories[:, : self.num_steps, :act_dim]


class CriticLoss:
    """Loss of the critic: expectile regression on n-step targets, and weighted imitation.

    Args:
        pieces: The data.
        imagination: Makes the branches. None: the critic learns from the data alone.
        config: Settings.
    """

    def __init__(self, pieces: Pieces, imagination: Imagination | None, config: FrontierConfig):
        self.pieces, self.imagination, self.config = pieces, imagination, config
        self._branches: Branches | None = None

    def __call__(
        self, training: nn.Module, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch, real pieces first and then imagined branches."""
        assert isinstance(training, CriticTraining)
        critic, num, num_imagined = training.critic, self.config.critic_batch_size, 0
        real_expectile = self.config.alone_expectile
        if self.imagination is not None:
            if self._branches is None or training.steps % self.config.branch_interval == 0:
                self._branches = self._imagine(self.imagination, critic, generator)
            num_imagined = round(self.config.branch_share * num)
            real_expectile = self.config.real_expectile
        num_real = num - num_imagined
        steps_left = torch.randint(
            1, critic.max_steps + 1, (num,), generator=generator, device=generator.device
        ).to(torch.float32)
        multipliers = random_multipliers(num, generator)
        with torch.no_grad():
            backup = self._real(num_real, steps_left[:num_real], generator)
            if num_imagined:
                best = self._imagined(
                    training, steps_left[num_real:], multipliers[num_real:], generator
                )
                backup = Backup(*(torch.cat(both) for both in zip(vars(backup).values(), best)))
            returns, costs = targets(training.target, backup, steps_left, multipliers)
        expectiles = torch.cat(
            [
                returns.new_full((num_real,), real_expectile),
                returns.new_full((num_imagined,), self.config.branch_expectile),
            ]
        )
        predicted = critic(backup.obs, steps_left, multipliers)
        price = multipliers * critic.multiplier_unit()
        advantage = (returns - price * costs - (predicted[0] - price * predicted[1])).detach()
        weight = torch.where(advantage > 0, expectiles, 1.0 - expectiles)
        value = weight * (
            ((returns - predicted[0]) / critic.return_scale) ** 2
            + (COST_EMPHASIS * (costs - predicted[1]) / critic.cost_scale) ** 2
        )
        imitation = advantage_weights(advantage / (critic.return_scale * (1.0 + multipliers)))
        error = (critic.act(backup.obs, steps_left, multipliers) - backup.actions) ** 2
        actor = imitation * error.sum(dim=1)
        loss = value.mean() + ACTOR_WEIGHT * actor.mean()
        return loss, {"critic": value.mean().detach(), "actor": actor.mean().detach()}

    def after_step(self, training: nn.Module) -> None:
        """Moves the target towards the critic, and counts the step."""
        assert isinstance(training, CriticTraining)
        pairs = zip(training.target.parameters(), training.critic.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, self.config.target_rate)
        training.steps += 1

    @torch.no_grad()
    def _imagine(
        self, imagination: Imagination, critic: FrontierCritic, generator: torch.Generator
    ) -> Branches:
        brancher = Brancher(imagination.dynamics, critic, imagination.num_steps, generator)
        chosen = torch.randint(
            len(self.pieces), (self.config.num_branches,), generator=generator,
            device=generator.device,
        )  # fmt: skip
        obs = brancher.starts(self.pieces.obs[chosen])
        act_dim = self.pieces.actions.shape[1]
        plans = [
            imagination.plans(obs, act_dim, generator)
            for _ in range(self.config.num_diffusion_branches)
        ]
        return brancher.branch(obs, plans)

    def _real(self, num: int, steps_left: Tensor, generator: torch.Generator) -> Backup:
        device = generator.device
        starts = torch.randint(len(self.pieces), (num,), generator=generator, device=device)
        longest = self.config.real_steps
        num_steps = torch.randint(1, longest + 1, (num,), generator=generator, device=device)
        return self.pieces.get(starts, torch.minimum(num_steps, steps_left), longest)

    def _imagined(
        self,
        training: CriticTraining,
        steps_left: Tensor,
        multipliers: Tensor,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """Of the branches of one state each, the one that the target rates best."""
        branches = self._branches
        assert branches is not None
        num, device, width = len(steps_left), generator.device, branches.num_plans
        states = torch.randint(len(branches.obs), (num,), generator=generator, device=device)
        longest = branches.piece.returns.shape[1]
        num_steps = torch.randint(1, longest + 1, (num, width), generator=generator, device=device)
        backup = branches.get(states, torch.minimum(num_steps, steps_left[:, None]))
        wide_multipliers = multipliers.repeat_interleave(width)
        returns, costs = targets(
            training.target, backup, steps_left.repeat_interleave(width), wide_multipliers
        )
        combined = returns - wide_multipliers * training.target.multiplier_unit() * costs
        best = combined.view(num, width).argmax(dim=1)
        rows = torch.arange(num, device=device) * width + best
        return [tensor[rows] for tensor in vars(backup).values()]


def targets(
    critic: FrontierCritic, backup: Backup, steps_left: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Return-to-go and cost-to-go: what happened, and what the critic says of the rest; `(N,)`."""
    returns, costs = critic(backup.next_obs, steps_left - backup.num_steps, multipliers)
    return (
        backup.returns + backup.survival * critic.discount**backup.num_steps * returns,
        backup.costs + backup.survival * critic.cost_discount**backup.num_steps * costs,
    )


def advantage_weights(advantage: Tensor) -> Tensor:
    """exp(advantage in standard deviations x sharpness), bounded, with a mean of 1; `(N,)`."""
    weights = torch.exp(ADVANTAGE_SHARPNESS * advantage / advantage.std().clamp_min(1e-6))
    weights = weights.clamp(max=MAX_ADVANTAGE_WEIGHT)
    return weights / weights.mean()
