"""Imagined branches: what several courses of action would lead to, from many states, in the model.

They show the frontier critic what the data's behavior never tried. From every state go plans of
the diffusion model, random plans, and plans of the critic's own behaviors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Piece, StepPolicy, roll_out
from safe_diffusion_agent.learning.transitions import Backup
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic, random_multipliers

NUM_RANDOM, NUM_HABITS = 2, 2  # plans per state, beside those of the diffusion model
MAX_DETOUR = 8  # random steps before the start, for half of the states
MAX_DRIFT = 60  # steps of the critic's own behavior before the start, for a third of them
MAX_SEGMENT = 8  # steps for which a random plan keeps its action
EXPLORATION = 0.2  # standard deviation of noise on the critic's actions, as a share of their range


@dataclass(frozen=True)
class Branches:
    """S states, and K plans of n steps from each.

    Attributes:
        obs: `(S, O)`, normalised.
        piece: What the plans lead to; row s K + k is plan k of state s.
    """

    obs: Tensor
    piece: Piece

    @property
    def num_plans(self) -> int:
        """K."""
        return len(self.piece.returns) // len(self.obs)

    def get(self, states: Tensor, num_steps: Tensor) -> Backup:
        """All plans of the states `(B,)`, each cut after `num_steps` `(B, K)`: B K rows."""
        num_plans = self.num_plans
        plans = torch.arange(num_plans, device=states.device)
        rows = (states[:, None] * num_plans + plans).flatten()
        at = (rows, num_steps.flatten().long() - 1)
        return Backup(
            obs=self.obs[states].repeat_interleave(num_plans, 0),
            actions=self.piece.actions[rows, 0],
            returns=self.piece.returns[at],
            costs=self.piece.costs[at],
            next_obs=self.piece.observations[at],
            survival=self.piece.survival[at],
            num_steps=num_steps.flatten().to(torch.float32),
        )


class Brancher:
    """Makes branches.

    Args:
        dynamics: One-step models.
        critic: The frontier critic, whose behaviors are followed.
        num_steps: n.
        generator: Gives the random numbers.
    """

    def __init__(
        self,
        dynamics: DynamicsEnsemble,
        critic: FrontierCritic,
        num_steps: int,
        generator: torch.Generator,
    ):
        self._dynamics, self._critic, self._num_steps = dynamics, critic, num_steps
        self._generator = generator

    def starts(self, obs: Tensor) -> Tensor:
        """Moves states of the data `(S, O)` to others nearby, and to where the critic goes."""
        followed = len(obs) // 3
        drifted = self._walk(obs[:followed], self._habit(followed), MAX_DRIFT)
        moved = torch.cat([drifted, obs[followed:]])
        half = len(obs) // 2
        detour = self.random_plans(len(obs) - half, MAX_DETOUR)
        return torch.cat(
            [moved[:half], self._walk(moved[half:], lambda _, t: detour[:, t], MAX_DETOUR)]
        )

    def branch(self, obs: Tensor, plans: list[Tensor]) -> Branches:
        """Branches from `obs` `(S, O)`: given plans `(S, n, A)`, random ones, and the critic's."""
        plans = [*plans, *(self.random_plans(len(obs), self._num_steps) for _ in range(NUM_RANDOM))]
        plans += [self._roll(obs, self._habit(len(obs))).actions for _ in range(NUM_HABITS)]
        actions = torch.stack(plans, dim=1).flatten(0, 1)
        starts = obs.repeat_interleave(len(plans), 0)
        return Branches(obs, self._roll(starts, lambda _, t: actions[:, t]))

    def random_plans(self, num: int, num_steps: int) -> Tensor:
        """Piecewise constant actions `(num, num_steps, A)`, uniform in the action space."""
        low, high = self._critic.action_low, self._critic.action_high
        levels = low + (high - low) * self._uniform(num, num_steps, len(low))
        segment = self._integers(1, MAX_SEGMENT + 1, num)
        steps = torch.arange(num_steps, device=levels.device)
        index = (steps // segment[:, None]).long()[:, :, None].expand(-1, -1, len(low))
        return levels.gather(1, index)

    def _habit(self, num: int) -> StepPolicy:
        """The critic's behavior for random multipliers and steps left, with some noise."""
        critic = self._critic
        multipliers = random_multipliers(num, self._generator)
        steps_left = self._integers(1, critic.max_steps + 1, num)
        spread = EXPLORATION * (critic.action_high - critic.action_low) / 2
        noisy = self._uniform(num, 1) < 0.5

        def act(obs: Tensor, t: int) -> Tensor:
            actions = critic.act(obs, (steps_left - t).clamp_min(1.0), multipliers)
            noise = torch.randn(actions.shape, generator=self._generator, device=actions.device)
            moved = actions + spread * noise * noisy
            return moved.clamp(critic.action_low, critic.action_high)

        return act

    def _walk(self, obs: Tensor, policy: StepPolicy, max_steps: int) -> Tensor:
        """States after 0 to `max_steps` steps, at random."""
        num_steps = self._integers(0, max_steps + 1, len(obs))
        for t in range(max_steps):
            moved = self._dynamics.step(obs, policy(obs, t)).observation
            obs = torch.where((t < num_steps)[:, None], moved, obs)
        return obs

    def _roll(self, obs: Tensor, policy: StepPolicy) -> Piece:
        return roll_out(
            self._dynamics,
            obs,
            policy,
            self._num_steps,
            discount=self._critic.discount,
            cost_discount=self._critic.cost_discount,
        )

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self._generator.device)

    def _integers(self, low: int, high: int, num: int) -> Tensor:
        drawn = torch.randint(
            low, high, (num,), generator=self._generator, device=self._generator.device
        )
        return drawn.to(torch.float32)
