"""Trains the frontier critic.

It learns by n-step temporal differences from real pieces of episodes and from imagined branches.
Both of its value heads are regressed on the same target behavior, weighted by an expectile
(Kostrikov et al. 2022, Eq. 5) of the combined value return - m cost. Its actor imitates first
actions, weighted by the exponential of their advantage (Nair et al. 2020).
"""

import copy

import torch
from torch import Tensor

from safe_diffusion_agent.learning.networks import move_towards
from safe_diffusion_agent.learning.training import Training
from safe_diffusion_agent.learning.transitions import NStepTarget, Transitions
from safe_diffusion_agent.methods.trebi.config import FrontierConfig
from safe_diffusion_agent.methods.trebi.frontier.branches import BranchedRollouts, RolloutSource
from safe_diffusion_agent.methods.trebi.frontier.critic import (
    FrontierCritic,
    random_multipliers,
    targets,
)

MAX_ADVANTAGE_WEIGHT = 20.0
ADVANTAGE_SHARPNESS = 2.0  # per standard deviation of the advantages in the batch
ACTOR_WEIGHT = 0.1
COST_EMPHASIS = 2.0  # errors of the cost count this much more than those of the return


class CriticTraining(Training):
    """Trains the critic by expectile regression on n-step targets, and weighted imitation.

    Args:
        networks: The critic.
        transitions: The data.
        source: Makes branched rollouts.
        config: Settings.
    """

    loss_weights = {"actor": ACTOR_WEIGHT}
    steps: Tensor

    def __init__(
        self,
        networks: FrontierCritic,
        transitions: Transitions,
        source: RolloutSource,
        config: FrontierConfig,
    ):
        super().__init__(networks)
        self.target = copy.deepcopy(networks).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.transitions, self.source, self.config = transitions, source, config
        self._branches: BranchedRollouts | None = None

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one batch, real pieces of episodes first, then branches."""
        critic, num = self.networks, self.config.critic_batch_size
        if self._branches is None or self.steps % self.config.branch_interval == 0:
            self._branches = self._branch(generator)
        num_imagined = round(self.config.branch_share * num)
        num_real = num - num_imagined
        steps_left = _integers(1, critic.max_steps + 1, (num,), generator).to(torch.float32)
        multipliers = random_multipliers(num, generator)
        with torch.no_grad():
            target = self._real(num_real, steps_left[:num_real], generator)
            best = self._best_branches(steps_left[num_real:], multipliers[num_real:], generator)
            target = NStepTarget(*(torch.cat(both) for both in zip(vars(target).values(), best)))
            returns, costs = targets(self.target, target, steps_left, multipliers)
        expectiles = torch.cat(
            [
                returns.new_full((num_real,), self.config.real_expectile),
                returns.new_full((num_imagined,), self.config.branch_expectile),
            ]
        )
        predicted = critic(target.obs, steps_left, multipliers)
        price = multipliers * critic.multiplier_unit()
        advantage = (returns - price * costs - (predicted[0] - price * predicted[1])).detach()
        weight = torch.where(advantage > 0, expectiles, 1.0 - expectiles)
        value = weight * (
            ((returns - predicted[0]) / critic.return_scale) ** 2
            + (COST_EMPHASIS * (costs - predicted[1]) / critic.cost_scale) ** 2
        )
        imitation = advantage_weights(advantage / (critic.return_scale * (1.0 + multipliers)))
        error = (critic.act(target.obs, steps_left, multipliers) - target.actions) ** 2
        return {"critic": value.mean(), "actor": (imitation * error.sum(dim=1)).mean()}

    def after_step(self) -> None:
        """Moves the target towards the critic, and counts the step."""
        move_towards(self.target, self.networks, self.config.target_rate)
        self.steps += 1

    @torch.no_grad()
    def _branch(self, generator: torch.Generator) -> BranchedRollouts:
        shape = (self.config.num_branches,)
        chosen = _integers(0, len(self.transitions), shape, generator)
        obs = self.transitions.all.obs[chosen]
        return self.source.branch(obs, self.config.num_diffusion_branches, generator)

    def _real(self, num: int, steps_left: Tensor, generator: torch.Generator) -> NStepTarget:
        starts = _integers(0, len(self.transitions), (num,), generator)
        longest, critic = self.config.real_steps, self.networks
        num_steps = _integers(1, longest + 1, (num,), generator)
        return self.transitions.n_step(
            starts,
            torch.minimum(num_steps, steps_left),
            longest,
            discount=critic.discount,
            cost_discount=critic.cost_discount,
        )

    def _best_branches(
        self, steps_left: Tensor, multipliers: Tensor, generator: torch.Generator
    ) -> list[Tensor]:
        """Returns, of the branches of one state each, the one that the target rates best."""
        branches = self._branches
        assert branches is not None
        num, width = len(steps_left), branches.num_plans
        states = _integers(0, len(branches.obs), (num,), generator)
        longest = branches.rollout.returns.shape[1]
        num_steps = _integers(1, longest + 1, (num, width), generator)
        target = branches.get(states, torch.minimum(num_steps, steps_left[:, None]))
        wide_multipliers = multipliers.repeat_interleave(width)
        returns, costs = targets(
            self.target, target, steps_left.repeat_interleave(width), wide_multipliers
        )
        combined = returns - wide_multipliers * self.target.multiplier_unit() * costs
        best = combined.view(num, width).argmax(dim=1)
        rows = torch.arange(num, device=generator.device) * width + best
        return [tensor[rows] for tensor in vars(target).values()]


def advantage_weights(advantage: Tensor) -> Tensor:
    """Returns exp(sharpness x advantage in standard deviations), bounded, mean 1; `(N,)`."""
    weights = torch.exp(ADVANTAGE_SHARPNESS * advantage / advantage.std().clamp_min(1e-6))
    weights = weights.clamp(max=MAX_ADVANTAGE_WEIGHT)
    return weights / weights.mean()


def _integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device=generator.device)
