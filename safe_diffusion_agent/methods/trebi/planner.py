"""From states and budgets to candidates and a choice among them (Lin et al. 2023, Alg. 1).

The budget steers the plan in two places, which are pure functions: the gradient of Eq. 16, and the
choice among candidates. With return R(tau), cost C(tau), remaining budget z and n > 0, the target

    log h(tau) = alpha (R(tau) - n 1[C(tau) > z] (C(tau) - z))        (Eq. 13-14)

has the gradient alpha (grad R - n 1[C > z] grad C).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from safe_diffusion_agent.compute import executable
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import (
    GUIDED_STEPS,
    Guide,
    NoiseSchedule,
    Normalizer,
    sample,
    starting_in,
    time_limit_mask,
)
from safe_diffusion_agent.methods.trebi.networks import (
    ValueNetworks,
    diffusion_networks,
    in_precision,
)
from safe_diffusion_agent.methods.trebi.plan import Choice, Rated
from safe_diffusion_agent.settings import check

TrajectoryValue = Callable[[Tensor], Tensor]
TensorPair = tuple[Tensor, Tensor]


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
    """Returns what raises the return and, over budget, lowers the cost (Eq. 16; Alg. 1, 5-9).

    Args:
        trajectories: Noised candidates, `(N, H, D)`.
        remaining_budget: z of each candidate, `(N,)`, in cost units; `inf` for no constraint.
        reward_value: Maps trajectories to their return, `(N, H, D) -> (N,)`.
        cost_value: The same for the cost, in cost units. A NaN counts as over budget.
        guidance_scale: alpha, > 0.
        penalty: n, >= 0.
        penalty_ramp: Multiplies n by exp(min((C - z) / z, 1)), the reference code's `guide_type 0`.
        skip_idle_cost: Whether to look if anyone is over budget, and to leave out the cost's
            gradient, half of the work, if nobody is. Compiled and recorded plans cannot look.

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
    predicted_return: Tensor,
    predicted_cost: Tensor,
    remaining_budget: Tensor,
    head_start: TensorPair | None = None,
) -> tuple[Tensor, Tensor]:
    """Chooses, for each state, the plan to execute (Lin et al. 2023, App. D).

    It is the one of the highest predicted return among those whose predicted cost is within the
    budget; if there is none, that of the lowest cost, as in the reference code (the paper does not
    say). A candidate with a NaN is chosen last.

    Args:
        predicted_return: `(B, K)`.
        predicted_cost: `(B, K)`, in cost units.
        remaining_budget: `(B,)`, in cost units.
        head_start: What is added to the returns, and taken off the costs, before candidates are
            compared, `(B, K)` each. Whether one is within the budget stays as it is.

    Returns:
        The index of the chosen candidate, `(B,)`, and whether it is within the budget, `(B,)`.
    """
    broken = predicted_return.isnan() | predicted_cost.isnan()
    within_budget = (predicted_cost <= remaining_budget[:, None]) & ~broken
    feasible = within_budget.any(dim=1)
    if head_start is not None:
        predicted_return = predicted_return + head_start[0]
        predicted_cost = predicted_cost - head_start[1]
    largest = torch.finfo(predicted_cost.dtype).max  # infinite predictions are not yet broken ones
    finite_return = predicted_return.clamp(min=-largest)
    best = finite_return.masked_fill(~within_budget, -torch.inf).argmax(dim=1)
    cheapest = predicted_cost.clamp(max=largest).masked_fill(broken, torch.inf).argmin(dim=1)
    return torch.where(feasible, best, cheapest), feasible


class Sampler:
    """Draws trajectories from the diffusion model.

    Args:
        networks: Trained networks, with a `denoiser`; `sampling_networks` are in the precision
            that is sampled in.
        schedule: Noise schedule, on their device.
        normalizer: The one that they were trained with.
        config: Settings.
        task: Dimensions and time limit.
    """

    def __init__(
        self,
        networks: nn.Module,
        schedule: NoiseSchedule,
        normalizer: Normalizer,
        config: TrebiConfig,
        task: Task,
    ):
        self.config, self.task, self.normalizer = config, task, normalizer
        self.networks: Any = networks
        self.schedule = schedule
        self.sampling_networks = in_precision(networks, config.planner.precision)
        num_steps = config.planner.sampling_steps or schedule.num_steps
        self._sampling_schedule = schedule.respaced(num_steps)

    def draw_noise(self, num: int, generator: torch.Generator) -> Tensor:
        """Returns all noise for `num` trajectories, `(S, num, H, D)`."""
        shape = (num, self.config.model.horizon, self.task.act_dim + self.task.obs_dim)
        return self._sampling_schedule.draw_noise(shape, generator)

    def draw(
        self, obs: Tensor, steps: Tensor, noise: Tensor, guide: Guide | None = None
    ) -> TensorPair:
        """Returns N trajectories, and the noised ones before the last denoising; `(N, H, D)` each.

        Args:
            obs: First observations, `(N, O)`, in environment units.
            steps: `(N,)`, steps up to the time limit.
            noise: What `draw_noise` gave for N trajectories.
            guide: Maps trajectories and a diffusion step to the gradient. None: unguided.
        """
        planner, act_dim = self.config.planner, self.task.act_dim
        mask: Tensor | float = 1.0
        if self.config.training.windows == "all":
            dims = (act_dim, act_dim + self.task.obs_dim)
            mask = time_limit_mask(steps, self.config.model.horizon, *dims)
        return sample(
            lambda x, step: self.clip(self.sampling_networks.denoiser(x, step)),
            self._sampling_schedule,
            noise,
            starting_in(self.normalizer.observations(obs), mask),
            guide,
            guided_step=GUIDED_STEPS[planner.guidance_on],
            guidance_repeats=planner.guidance_repeats,
            num_unguided_steps=planner.num_unguided_steps,
        )

    def clip(self, x: Tensor) -> Tensor:
        """Clips to the action space and to the range of the observed, if the settings say so."""
        clip = self.config.planner.clip
        return x.clamp(self.normalizer.low, self.normalizer.high) if clip else x


class Judge(Protocol):
    """Rates plans of a sampler, and may add some of its own."""

    networks_class: ClassVar[Any]  # called with `ModelConfig` and task
    sampler: Sampler
    num_candidates: int  # K, per state
    looks_at_time: bool
    predicts_costs: bool  # whether `costs_of_behavior` are predictions, which may be wrong
    foresee: Any  # maps plans, state and steps to cost and return for each price, if there are any

    def __init__(self, sampler: Sampler): ...

    def candidates(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Rated:
        """Returns candidates of the states `(B, O)`, rated for the budgets and steps `(B,)`."""

    def costs_of_behavior(self, obs: Tensor, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what the data's behavior goes on to spend from N states, one sample each."""


class Planner:
    """Chooses, for many states at once, the best of several trajectories."""

    def __init__(self, judge: Judge):
        self.judge, sampler = judge, judge.sampler
        self.config = sampler.config
        self.renew()

    def renew(self) -> None:
        """Forgets what was compiled or recorded; it is called when the judge has changed."""
        sampler, large = self.judge.sampler, self.config.model.network == "unet"
        self._execute = executable(
            self.plan,
            self.config.planner.execution,
            sampler.schedule.alpha_bar.device,
            list(diffusion_networks(sampler.sampling_networks).values()) if large else (),
        )

    def __call__(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        """Plans H steps from each of B states.

        Args:
            obs: `(B, O)`, in environment units.
            budget: `(B,)`, in cost units, less the margin.
            steps: `(B,)`, steps up to the time limit, >= 1.
            generator: Gives the random numbers.
        """
        num = len(obs) * self.config.planner.num_candidates
        return self._execute(obs, budget, steps, self.judge.sampler.draw_noise(num, generator))

    def plan(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Choice:
        """Plans as a function of tensors, which looks at none of their values."""
        rated = self.judge.candidates(obs, budget, steps, noise)
        chosen = select_candidate(rated.returns, rated.costs, budget, rated.head_start)
        return Choice(rated.trajectories, rated.returns, rated.costs, *chosen)


class ValueJudge:
    """Samples under guidance, and rates by the value networks (Lin et al. 2023, Alg. 1)."""

    networks_class: ClassVar[Any] = ValueNetworks
    predicts_costs, foresee = True, None

    def __init__(self, sampler: Sampler):
        self.sampler, self.config = sampler, sampler.config
        self.num_candidates = self.config.planner.num_candidates
        check(self.num_candidates > 0, "num_candidates should be positive", self.num_candidates)
        self.looks_at_time = self.config.model.time_to_go
        quantile, quantiles = self.config.planner.cost_quantile, self.config.model.cost_quantiles
        self._cost_column = 0 if quantile is None else 1 + quantiles.index(quantile)

    def candidates(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Rated:
        """Returns candidates of the states `(B, O)`, rated for the budgets and steps `(B,)`."""
        planner, num = self.config.planner, self.num_candidates
        obs, budget, steps = (tensor.repeat_interleave(num, 0) for tensor in (obs, budget, steps))
        guide = partial(self._gradient, budget, steps) if planner.guidance_scale > 0 else None
        final, noised = self.sampler.draw(obs, steps, noise, guide)
        returns, costs = self.rate(final if planner.score == "final" else noised, steps)
        trajectories = self.sampler.clip(final).view(-1, num, *final.shape[1:])
        return Rated(trajectories, returns.view(-1, num), costs.view(-1, num))

    def rate(self, trajectories: Tensor, steps: Tensor) -> TensorPair:
        """Returns return and cost of clean trajectories `(N, H, D)`, `(N,)` each, in float32."""
        clean_step = torch.zeros(1, dtype=torch.int64, device=trajectories.device)
        returns, costs = self._values(self.sampler.networks, steps, clean_step)
        return returns(trajectories), costs(trajectories)

    def costs_of_behavior(self, obs: Tensor, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what the data's behavior goes on to spend from N states, one sample each."""
        noise = self.sampler.draw_noise(len(obs), generator)
        return self.rate(self.sampler.draw(obs, steps, noise)[0], steps)[1]

    def _gradient(self, budget: Tensor, steps: Tensor, x: Tensor, diffusion_step: Tensor) -> Tensor:
        planner = self.config.planner
        return budget_gradient(
            x,
            budget,
            *self._values(self.sampler.sampling_networks, steps, diffusion_step),
            guidance_scale=planner.guidance_scale,
            penalty=planner.penalty,
            penalty_ramp=planner.penalty_ramp,
            skip_idle_cost=planner.execution == "eager" and not x.is_cuda,
        )

    def _values(
        self, networks: ValueNetworks, steps: Tensor, diffusion_step: Tensor
    ) -> tuple[TrajectoryValue, TrajectoryValue]:
        """Returns the values of reward and cost at a diffusion step, `(N, H, D)` to `(N,)` each."""
        time_to_go = None
        if self.looks_at_time:
            assert self.sampler.task.max_episode_steps is not None
            time_to_go = steps[:, None] / self.sampler.task.max_episode_steps
        return (
            lambda x: networks.reward(x, diffusion_step, time_to_go)[:, 0],
            lambda x: networks.cost(x, diffusion_step, time_to_go)[:, self._cost_column],
        )
