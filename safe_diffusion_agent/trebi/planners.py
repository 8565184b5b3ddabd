"""From states and budgets to candidates and a choice among them: the two ways to plan.

`GuidedPlanner` is Alg. 1 of Lin et al. 2023. `FrontierPlanner` is our improvement on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.task import Task
from safe_diffusion_agent.trebi.config import TrebiConfig
from safe_diffusion_agent.trebi.diffusion import Guide, Schedule, sample
from safe_diffusion_agent.trebi.frontier import Judge
from safe_diffusion_agent.trebi.frontier_networks import MULTIPLIERS
from safe_diffusion_agent.trebi.guidance import budget_gradient, select_candidate
from safe_diffusion_agent.trebi.networks import TrebiNetworks
from safe_diffusion_agent.trebi.trajectories import Normalizer, time_limit_mask

Value = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Choice:
    """Candidates of B states, K each, and the chosen ones.

    Attributes:
        trajectories: `(B, K, H, A + O)`, normalised.
        returns: `(B, K)`, predicted up to the end of the episode.
        costs: `(B, K)`, the same; see `Plan.predicted_cost`.
        chosen: `(B,)`, index of the chosen candidate.
        feasible: `(B,)`, whether it is predicted to keep the budget.
    """

    trajectories: Tensor
    returns: Tensor
    costs: Tensor
    chosen: Tensor
    feasible: Tensor


class Planner(ABC):
    """Plans for many states at once.

    Args:
        networks: Trained networks.
        schedule: Noise schedule.
        normalizer: What the networks were trained with.
        config: Settings.
        task: Dimensions and time limit.
    """

    def __init__(
        self,
        networks: TrebiNetworks,
        schedule: Schedule,
        normalizer: Normalizer,
        config: TrebiConfig,
        task: Task,
    ):
        self.networks, self.schedule, self.normalizer = networks, schedule, normalizer
        self.config, self.task = config, task

    @property
    def num_candidates(self) -> int:
        """K, candidates per state."""
        return self.config.planner.num_candidates

    @abstractmethod
    def __call__(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        """Plans H steps from each state.

        Args:
            obs: `(B, O)`, in environment units.
            budget: `(B,)`, in cost units, less the margin.
            steps: `(B,)`, steps up to the time limit, >= 1.
            generator: Gives the random numbers.
        """

    def draw(
        self, obs: Tensor, steps: Tensor, generator: torch.Generator, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Trajectories of the diffusion model, final ones and the noised ones before; `(N, H, D)`.

        Args:
            obs: First observations, `(N, O)`, in environment units.
            steps: `(N,)`, steps up to the time limit.
            generator: Gives the random numbers.
            guide: See `diffusion.sample`.
        """
        planner = self.config.planner
        final, noised = sample(
            lambda x, i: self.clip(self.networks.denoiser(x, i)),
            self.schedule,
            (len(obs), self.config.model.horizon, self.task.act_dim + self.task.obs_dim),
            self._condition(obs, steps),
            generator,
            guide,
            guidance_on=planner.guidance_on,
            guidance_repeats=planner.guidance_repeats,
            num_unguided_steps=planner.num_unguided_steps,
        )
        return final, noised

    def clip(self, x: Tensor) -> Tensor:
        """Clips to the action space and to the range of the observed, if the settings say so."""
        clip = self.config.planner.clip
        return x.clamp(self.normalizer.low, self.normalizer.high) if clip else x

    def _condition(self, obs: Tensor, steps: Tensor) -> Callable[[Tensor], Tensor]:
        """Imposes the observation, and zeros beyond the time limit; one per row."""
        act_dim, horizon = self.task.act_dim, self.config.model.horizon
        first_observation = self.normalizer.normalize(obs, slice(act_dim, None))
        mask = torch.ones((), device=obs.device)
        if self.config.training.windows == "all":
            mask = time_limit_mask(steps, horizon, act_dim, act_dim + self.task.obs_dim)

        def condition(x: Tensor) -> Tensor:
            x = x * mask
            x[:, 0, act_dim:] = first_observation
            return x

        return condition


class GuidedPlanner(Planner):
    """Samples under guidance, and judges by the value networks (Lin et al. 2023, Alg. 1)."""

    def __call__(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        """See `Planner`."""
        planner = self.config.planner
        num = planner.num_candidates
        row_obs, row_budget, row_steps = (
            tensor.repeat_interleave(num, 0) for tensor in (obs, budget, steps)
        )
        reward_value, cost_value = self._values(row_steps)

        def guide(x: Tensor, diffusion_step: Tensor) -> Tensor:
            return budget_gradient(
                x,
                row_budget,
                lambda y: reward_value(y, diffusion_step),
                lambda y: cost_value(y, diffusion_step),
                guidance_scale=planner.guidance_scale,
                penalty=planner.penalty,
                penalty_ramp=planner.penalty_ramp,
            )

        guided = planner.guidance_scale > 0
        final, noised = self.draw(row_obs, row_steps, generator, guide if guided else None)
        scored = final if planner.score == "final" else noised
        clean_step = torch.zeros(1, dtype=torch.int64, device=obs.device)
        returns = reward_value(scored, clean_step).view(-1, num)
        costs = cost_value(scored, clean_step).view(-1, num)
        trajectories = self.clip(final).view(len(obs), num, *final.shape[1:])
        return Choice(trajectories, returns, costs, *select_candidate(returns, costs, budget))

    def _values(self, steps: Tensor) -> tuple[Value, Value]:
        """Reward and cost value, `(N, H, D)` and a diffusion step to `(N,)`; one step per row."""
        model, quantile = self.config.model, self.config.planner.cost_quantile
        time_to_go = None
        if model.time_to_go:
            assert self.task.max_episode_steps is not None
            time_to_go = steps[:, None] / self.task.max_episode_steps
        cost_column = 0 if quantile is None else 1 + model.cost_quantiles.index(quantile)

        def reward_value(x: Tensor, diffusion_step: Tensor) -> Tensor:
            values: Tensor = self.networks.reward(x, diffusion_step, time_to_go)
            return values[:, 0]

        def cost_value(x: Tensor, diffusion_step: Tensor) -> Tensor:
            values: Tensor = self.networks.cost(x, diffusion_step, time_to_go)
            return values[:, cost_column]

        return reward_value, cost_value


class FrontierPlanner(Planner):
    """Samples without guidance, adds the critic's own plans, and judges all by the frontier.

    The critic's plans make the choice consistent from step to step without any memory: what was
    counted on is among the candidates again.
    """

    @property
    def num_candidates(self) -> int:
        """K, candidates per state: those of the diffusion model, and the critic's."""
        planner = self.config.planner
        return planner.num_candidates + planner.critic_plans * len(MULTIPLIERS)

    def judge(self) -> Judge:
        """What the plans are judged by."""
        return Judge(self.networks.dynamics, self.networks.critic, self.config.planner.bound)

    def __call__(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        """See `Planner`."""
        planner, act_dim, judge = self.config.planner, self.task.act_dim, self.judge()
        start = self.normalizer.normalize(obs, slice(act_dim, None))
        row_obs = obs.repeat_interleave(planner.num_candidates, 0)
        row_steps = steps.repeat_interleave(planner.num_candidates, 0)
        sampled = self.clip(self.draw(row_obs, row_steps, generator)[0])
        candidates = [sampled.view(len(obs), -1, *sampled.shape[1:])]
        if planner.critic_plans:
            candidates.append(judge.habits(start, steps, self.config.model.horizon))
        trajectories = torch.cat(candidates, dim=1)
        num = trajectories.shape[1]
        rated = judge.rate(
            trajectories.flatten(0, 1),
            budget.repeat_interleave(num, 0),
            steps.repeat_interleave(num, 0),
        )
        returns, costs = (tensor.view(-1, num) for tensor in rated)
        return Choice(trajectories, returns, costs, *select_candidate(returns, costs, budget))
