"""From states and budgets to candidates and a choice among them (Lin et al. 2023, Alg. 1).

The budget steers the plan in two places, which are pure functions: the gradient of Eq. 16, and the
choice among candidates. With return R(tau), cost C(tau), remaining budget z and n > 0, the target

    log h(tau) = alpha (R(tau) - n 1[C(tau) > z] (C(tau) - z))        (Eq. 13-14)

has the gradient alpha (grad R - n 1[C > z] grad C).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from safe_diffusion_agent.compute import executable
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import (
    Guide,
    Normalizer,
    Schedule,
    sample,
    time_limit_mask,
)
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks, in_precision

Value = Callable[[Tensor, Tensor], Tensor]
TrajectoryValue = Callable[[Tensor], Tensor]


def budget_gradient(
    trajectories: Tensor,
    remaining_budget: Tensor,
    reward_value: TrajectoryValue,
    cost_value: TrajectoryValue,
    *,
    guidance_scale: float,
    penalty: float,
    penalty_ramp: bool = False,
    skip_idle_cost: bool = True,
) -> Tensor:
    """Gradient that raises the return and, over budget, lowers the cost (Eq. 16; Alg. 1, 5-9).

    Args:
        trajectories: Noised candidates, `(N, H, D)`.
        remaining_budget: z of each candidate, `(N,)`, in cost units; `inf` for no constraint.
        reward_value: Maps trajectories to their return, `(N, H, D) -> (N,)`.
        cost_value: The same for the cost, in cost units. A NaN counts as over budget.
        guidance_scale: alpha, > 0.
        penalty: n, >= 0.
        penalty_ramp: Multiplies n by exp(min((C - z) / z, 1)), which the reference code does by
            default (its `guide_type 0`) and its published experiments do not.
        skip_idle_cost: Whether to look if anyone is over budget, and to leave out the cost's
            gradient if nobody is. That is half of the work; but a GPU has to be waited for, and a
            plan that is compiled or recorded cannot look.

    Returns:
        The gradient, `(N, H, D)`, before multiplication by the step's variance.
    """
    with torch.enable_grad():
        x = trajectories.detach().requires_grad_()
        predicted_return, predicted_cost = reward_value(x), cost_value(x)
        over_budget = ~(predicted_cost.detach() <= remaining_budget)
        weight = penalty * over_budget
        if penalty_ramp:
            excess = (predicted_cost.detach() - remaining_budget) / remaining_budget
            weight = weight * excess.nan_to_num().clamp(0.0, 1.0).exp()
        objective = predicted_return.sum()
        if not skip_idle_cost or over_budget.any():
            objective = objective - (weight * predicted_cost).sum()
        (gradient,) = torch.autograd.grad(objective, x)
    return guidance_scale * gradient


def select_candidate(
    predicted_return: Tensor, predicted_cost: Tensor, remaining_budget: Tensor
) -> tuple[Tensor, Tensor]:
    """Chooses, for each state, the plan to execute (Lin et al. 2023, App. D).

    It is the candidate of the highest predicted return among those whose predicted cost is within
    the budget. If there is none (the paper does not say), it is the one of the lowest cost, as in
    the reference code. A candidate with a NaN is chosen last.

    Args:
        predicted_return: `(B, K)`.
        predicted_cost: `(B, K)`, in cost units.
        remaining_budget: `(B,)`, in cost units.

    Returns:
        The index of the chosen candidate, `(B,)`, and whether it is within the budget, `(B,)`.
    """
    broken = predicted_return.isnan() | predicted_cost.isnan()
    within_budget = (predicted_cost <= remaining_budget[:, None]) & ~broken
    feasible = within_budget.any(dim=1)
    largest = torch.finfo(
        predicted_cost.dtype
    ).max  # an infinite prediction is not yet a broken one
    best = (
        predicted_return.clamp(min=-largest).masked_fill(~within_budget, -torch.inf).argmax(dim=1)
    )
    cheapest = predicted_cost.clamp(max=largest).masked_fill(broken, torch.inf).argmin(dim=1)
    return torch.where(feasible, best, cheapest), feasible


class Choice(NamedTuple):
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
        num_steps = config.planner.sampling_steps or schedule.num_steps
        self._sampling_schedule = schedule.respaced(num_steps)
        self._sampling_networks = in_precision(networks, config.planner.precision)
        self._execute = executable(
            self.plan,
            config.planner.execution,
            schedule.alpha_bar.device,
            self._sampling_networks.unets() if config.model.network == "unet" else (),
        )

    @property
    def num_candidates(self) -> int:
        """K, candidates per state."""
        return self.config.planner.num_candidates

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
        noise = self.draw_noise(len(obs) * self.config.planner.num_candidates, generator)
        return self._execute(obs, budget, steps, noise)

    @abstractmethod
    def plan(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Choice:
        """The plan as a function of tensors, see `execution`.

        Args:
            obs: See `__call__`.
            budget: See `__call__`.
            steps: See `__call__`.
            noise: Of the sampled candidates, see `draw_noise`.
        """

    def draw_noise(self, num: int, generator: torch.Generator) -> Tensor:
        """Noise for `num` trajectories; see `diffusion.Schedule.draw_noise`."""
        shape = (num, self.config.model.horizon, self.task.act_dim + self.task.obs_dim)
        return self._sampling_schedule.draw_noise(shape, generator)

    def draw(
        self, obs: Tensor, steps: Tensor, noise: Tensor, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Trajectories of the diffusion model, final ones and the noised ones before; `(N, H, D)`.

        Args:
            obs: First observations, `(N, O)`, in environment units.
            steps: `(N,)`, steps up to the time limit.
            noise: See `draw_noise`.
            guide: See `diffusion.sample`.
        """
        planner = self.config.planner
        final, noised = sample(
            lambda x, i: self.clip(self._sampling_networks.denoiser(x, i)),
            self._sampling_schedule,
            noise,
            self._condition(obs, steps),
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

    def plan(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Choice:
        """See `Planner`."""
        planner = self.config.planner
        num = planner.num_candidates
        row_obs, row_budget, row_steps = (
            tensor.repeat_interleave(num, 0) for tensor in (obs, budget, steps)
        )
        reward_value, cost_value = self.values(row_steps, self._sampling_networks)

        def guide(x: Tensor, diffusion_step: Tensor) -> Tensor:
            return budget_gradient(
                x,
                row_budget,
                lambda y: reward_value(y, diffusion_step),
                lambda y: cost_value(y, diffusion_step),
                guidance_scale=planner.guidance_scale,
                penalty=planner.penalty,
                penalty_ramp=planner.penalty_ramp,
                skip_idle_cost=planner.execution == "eager" and not x.is_cuda,
            )

        guided = planner.guidance_scale > 0
        final, noised = self.draw(row_obs, row_steps, noise, guide if guided else None)
        reward_value, cost_value = self.values(row_steps)
        scored = final if planner.score == "final" else noised
        clean_step = torch.zeros(1, dtype=torch.int64, device=obs.device)
        returns = reward_value(scored, clean_step).view(-1, num)
        costs = cost_value(scored, clean_step).view(-1, num)
        trajectories = self.clip(final).view(len(obs), num, *final.shape[1:])
        return Choice(trajectories, returns, costs, *select_candidate(returns, costs, budget))

    def values(self, steps: Tensor, networks: TrebiNetworks | None = None) -> tuple[Value, Value]:
        """Reward and cost value, `(N, H, D)` and a diffusion step to `(N,)`.

        Args:
            steps: `(N,)`, steps up to the time limit.
            networks: None: those in float32, which judge.
        """
        networks = networks or self.networks
        model, quantile = self.config.model, self.config.planner.cost_quantile
        time_to_go = None
        if model.time_to_go:
            assert self.task.max_episode_steps is not None
            time_to_go = steps[:, None] / self.task.max_episode_steps
        cost_column = 0 if quantile is None else 1 + model.cost_quantiles.index(quantile)

        def reward_value(x: Tensor, diffusion_step: Tensor) -> Tensor:
            values: Tensor = networks.reward(x, diffusion_step, time_to_go)
            return values[:, 0]

        def cost_value(x: Tensor, diffusion_step: Tensor) -> Tensor:
            values: Tensor = networks.cost(x, diffusion_step, time_to_go)
            return values[:, cost_column]

        return reward_value, cost_value
