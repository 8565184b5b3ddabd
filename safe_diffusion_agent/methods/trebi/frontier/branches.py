"""Branched rollouts: what several courses of action would lead to, from many states, in the models.

They show the frontier critic what the data's behavior never tried. From every state go plans of
the diffusion model, random plans, and plans of the critic's own behaviors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.learning.dynamics import (
    DynamicsEnsemble,
    ModelRollout,
    StepPolicy,
    imagine,
)
from safe_diffusion_agent.learning.transitions import NStepTarget
from safe_diffusion_agent.methods.trebi.diffusion import sample, starting_in
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic, random_multipliers
from safe_diffusion_agent.methods.trebi.planner import Sampler

NUM_RANDOM, NUM_BEHAVIORS = 2, 2  # plans per state, beside those of the diffusion model
MAX_DETOUR = 8  # random steps before the start, for half of the states
MAX_DRIFT = 60  # steps of the critic's own behavior before the start, for a third of them
MAX_SEGMENT = 8  # steps for which a random plan keeps its action
EXPLORATION = 0.2  # standard deviation of noise on the critic's actions, as a share of their range


@dataclass(frozen=True)
class BranchedRollouts:
    """S states, and K plans of n steps from each.

    Attributes:
        obs: `(S, O)`, normalized.
        rollout: What the plans lead to; row s K + k is plan k of state s.
    """

    obs: Tensor
    rollout: ModelRollout

    @property
    def num_plans(self) -> int:
        """K."""
        return len(self.rollout.returns) // len(self.obs)

    def get(self, states: Tensor, num_steps: Tensor) -> NStepTarget:
        """Returns all plans of the states `(B,)`, cut after `num_steps` `(B, K)`: B K rows."""
        num_plans, rollout = self.num_plans, self.rollout
        plans = torch.arange(num_plans, device=states.device)
        rows = (states[:, None] * num_plans + plans).flatten()
        at = (rows, num_steps.flatten().long() - 1)
        return NStepTarget(
            obs=self.obs[states].repeat_interleave(num_plans, 0),
            actions=rollout.actions[rows, 0],
            returns=rollout.returns[at],
            costs=rollout.costs[at],
            next_obs=rollout.observations[at],
            survival=rollout.survival[at],
            num_steps=num_steps.flatten().to(torch.float32),
        )


class RolloutSource:
    """Makes branched rollouts, as long as the models are trusted.

    Args:
        sampler: The diffusion model, whose networks have `dynamics` and a `critic`.
    """

    def __init__(self, sampler: Sampler):
        self._sampler = sampler
        self._dynamics: DynamicsEnsemble = sampler.networks.dynamics
        self._critic: FrontierCritic = sampler.networks.critic
        self._num_steps = int(self._dynamics.trusted_steps)

    def branch(self, obs: Tensor, num_sampled: int, generator: torch.Generator) -> BranchedRollouts:
        """Branches from around states of the data.

        Args:
            obs: The states, `(S, O)`, normalized.
            num_sampled: Plans of the diffusion model per state.
            generator: Gives the random numbers.
        """
        obs = self.starts(obs, generator)
        num, num_steps = len(obs), self._num_steps
        plans = [self._sampled_actions(obs, generator) for _ in range(num_sampled)]
        plans += [self.random_plans(num, num_steps, generator) for _ in range(NUM_RANDOM)]
        plans += [
            self._imagine(obs, self._behavior(num, generator)).actions for _ in range(NUM_BEHAVIORS)
        ]
        actions = torch.stack(plans, dim=1).flatten(0, 1)
        starts = obs.repeat_interleave(len(plans), 0)
        return BranchedRollouts(obs, self._imagine(starts, lambda _, t: actions[:, t]))

    def starts(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Moves states of the data `(S, O)` to others nearby, and to where the critic goes."""
        followed = len(obs) // 3
        behavior = self._behavior(followed, generator)
        drifted = self._walk(obs[:followed], behavior, MAX_DRIFT, generator)
        moved = torch.cat([drifted, obs[followed:]])
        half = len(obs) // 2
        detour = self.random_plans(len(obs) - half, MAX_DETOUR, generator)
        walked = self._walk(moved[half:], lambda _, t: detour[:, t], MAX_DETOUR, generator)
        return torch.cat([moved[:half], walked])

    def random_plans(self, num: int, num_steps: int, generator: torch.Generator) -> Tensor:
        """Returns piecewise constant actions `(num, num_steps, A)`, uniform in the action space."""
        low, high = self._critic.action_low, self._critic.action_high
        levels = low + (high - low) * _uniform((num, num_steps, len(low)), generator)
        segment = _integers(1, MAX_SEGMENT + 1, num, generator)
        steps = torch.arange(num_steps, device=levels.device)
        index = (steps // segment[:, None]).long()[:, :, None].expand(-1, -1, len(low))
        return levels.gather(1, index)

    def _behavior(self, num: int, generator: torch.Generator) -> StepPolicy:
        """Returns the critic's behavior for random multipliers and steps left, with some noise."""
        critic = self._critic
        multipliers = random_multipliers(num, generator)
        steps_left = _integers(1, critic.max_steps + 1, num, generator)
        spread = EXPLORATION * (critic.action_high - critic.action_low) / 2
        noisy = _uniform((num, 1), generator) < 0.5

        def act(obs: Tensor, t: int) -> Tensor:
            actions: Tensor = critic.act(obs, (steps_left - t).clamp_min(1.0), multipliers)
            noise = torch.randn(actions.shape, generator=generator, device=actions.device)
            moved = actions + spread * noise * noisy
            return moved.clamp(critic.action_low, critic.action_high)

        return act

    def _walk(
        self, obs: Tensor, policy: StepPolicy, max_steps: int, generator: torch.Generator
    ) -> Tensor:
        """Returns states after 0 to `max_steps` steps, at random."""
        num_steps = _integers(0, max_steps + 1, len(obs), generator)
        for t in range(max_steps):
            moved = self._dynamics.step(obs, policy(obs, t)).observation
            obs = torch.where((t < num_steps)[:, None], moved, obs)
        return obs

    def _sampled_actions(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Returns actions `(S, n, A)` of one unguided trajectory from each state, in T steps."""
        sampler, act_dim = self._sampler, self._sampler.task.act_dim
        shape = (len(obs), sampler.config.model.horizon, act_dim + obs.shape[1])
        noise = sampler.schedule.draw_noise(shape, generator)

        def denoise(x: Tensor, step: Tensor) -> Tensor:
            return sampler.clip(sampler.networks.denoiser(x, step))

        trajectories, _ = sample(denoise, sampler.schedule, noise, starting_in(obs))
        return trajectories[:, : self._num_steps, :act_dim]

    def _imagine(self, obs: Tensor, policy: StepPolicy) -> ModelRollout:
        return imagine(
            self._dynamics,
            obs,
            policy,
            self._num_steps,
            discount=self._critic.discount,
            cost_discount=self._critic.cost_discount,
        )


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _integers(low: int, high: int, num: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(low, high, (num,), generator=generator, device=generator.device)
    return drawn.to(torch.float32)
