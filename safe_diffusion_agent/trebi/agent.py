"""The TREBI agent: plans that keep a budget which is given at every step (Lin et al. 2023, Alg. 1).

For a state, K candidate trajectories are drawn from the diffusion model, guided towards return and,
where they are predicted to overspend, away from cost. The best one that is predicted to keep the
remaining budget is chosen, and its first action executed. Next step, everything is done again.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.agent import Agent, FloatArray
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.task import Task
from safe_diffusion_agent.trebi.config import TrebiConfig, config_from_json
from safe_diffusion_agent.trebi.diffusion import Schedule, sample
from safe_diffusion_agent.trebi.guidance import budget_gradient, select_candidate
from safe_diffusion_agent.trebi.networks import TrebiNetworks
from safe_diffusion_agent.trebi.plan import Candidates, Plan
from safe_diffusion_agent.trebi.trajectories import Normalizer, time_limit_mask

MAX_TRAJECTORIES = 8192  # sampled at once; bounds the memory of planning for many states

Value = Callable[[Tensor, Tensor], Tensor]


class TrebiAgent(Agent):
    """Plans with a diffusion model so that every episode keeps its budget.

    Args:
        networks: Trained networks.
        normalizer: The one they were trained with.
        config: Settings.
        task: What they were trained for.
        **common: `about`, `device` and `seed` of `Agent`.

    Example:
        >>> from safe_diffusion_agent import TrebiAgent
        >>> agent = TrebiAgent.load("pendulum")
        >>> agent.act([-1.0, 0.0, 0.0], remaining_budget=12.5, remaining_steps=200).shape
        (1,)
    """

    method: ClassVar[str] = "trebi"
    config: TrebiConfig

    def __init__(
        self,
        networks: TrebiNetworks,
        normalizer: Normalizer,
        config: TrebiConfig,
        task: Task,
        **common: Any,
    ):
        super().__init__(task, **common)
        self.networks = networks.to(self.device).eval().requires_grad_(False)
        self.normalizer = normalizer.to(self.device)
        self.config = config
        self._schedule = Schedule.cosine(config.model.diffusion_steps, self.device)

    @property
    def cost_discount(self) -> float:
        """See `Agent.cost_discount`."""
        return self.config.model.cost_discount or self.task.cost_discount

    @property
    def budget_scale(self) -> float:
        """See `Agent.budget_scale`."""
        return self.config.planner.budget_scale

    @property
    def looks_at_time(self) -> bool:
        """See `Agent.looks_at_time`."""
        return self.config.model.time_to_go

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """The first action of `plan`; see `Agent.act`."""
        plan = self.plan(obs, remaining_budget, remaining_steps, generator=generator)
        return plan.actions[0, 0] if np.ndim(obs) == 1 else plan.actions[:, 0]

    def plan(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
        return_candidates: bool = False,
    ) -> Plan:
        """Plans H steps ahead for every state; one state is a batch of one.

        Args:
            obs: See `Agent.act`.
            remaining_budget: See `Agent.act`.
            remaining_steps: See `Agent.act`.
            generator: See `Agent.act`.
            return_candidates: Also returns the trajectories that were not chosen.

        Raises:
            ValueError: See `Agent.act`.
            FloatingPointError: The networks gave no finite action.
        """
        states, budgets, steps = self._check_inputs(obs, remaining_budget, remaining_steps)
        generator = self.generator if generator is None else generator
        chunk_size = max(1, MAX_TRAJECTORIES // self.config.planner.num_candidates)
        chunks = []
        for first in range(0, len(states), chunk_size):
            rows = slice(first, first + chunk_size)
            chunks.append(self._plan_chunk(states[rows], budgets[rows], steps[rows], generator))
        trajectories, returns, costs, chosen, feasible = (
            torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True)
        )
        act_dim = self.task.act_dim
        actions, observations = trajectories[..., :act_dim], trajectories[..., act_dim:]
        of_plan = (np.arange(len(chosen)), chosen)
        if not np.isfinite(actions[of_plan][:, 0]).all():
            raise FloatingPointError(
                "The plan has no finite action. Lower the penalty or the guidance_scale, or check "
                "that the observation is like those in the training data."
            )
        candidates = Candidates(actions, observations, returns, costs, chosen)
        return Plan(
            actions=actions[of_plan],
            observations=observations[of_plan],
            predicted_return=returns[of_plan],
            predicted_cost=costs[of_plan],
            feasible=feasible,
            candidates=candidates if return_candidates else None,
        )

    @torch.no_grad()
    def _plan_chunk(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Trajectories `(B, K, H, D)`, returns and costs `(B, K)`, chosen and feasible `(B,)`."""
        planner = self.config.planner
        num = planner.num_candidates
        budget = budget - planner.budget_margin * self.task.max_budget
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

        dim = self.task.act_dim + self.task.obs_dim
        final, noised = sample(
            self._denoise,
            self._schedule,
            (len(row_obs), self.config.model.horizon, dim),
            self._condition(row_obs, row_steps),
            generator,
            guide if planner.guidance_scale > 0 else None,
            guidance_on=planner.guidance_on,
            guidance_repeats=planner.guidance_repeats,
            num_unguided_steps=planner.num_unguided_steps,
        )
        scored = final if planner.score == "final" else noised
        clean_step = torch.zeros(1, dtype=torch.int64, device=self.device)
        predicted_return = reward_value(scored, clean_step).view(-1, num)
        predicted_cost = cost_value(scored, clean_step).view(-1, num)
        chosen, feasible = select_candidate(predicted_return, predicted_cost, budget)
        trajectories = self.normalizer.unnormalize(self._clip(final))
        shape = (len(obs), num, *trajectories.shape[1:])
        return trajectories.view(shape), predicted_return, predicted_cost, chosen, feasible

    def _condition(self, obs: Tensor, steps: Tensor) -> Callable[[Tensor], Tensor]:
        """Imposes the observation, and zeros beyond the time limit; one per row."""
        act_dim, horizon = self.task.act_dim, self.config.model.horizon
        first_observation = self.normalizer.normalize(obs, slice(act_dim, None))
        mask = torch.ones((), device=self.device)
        if self.config.training.windows == "all":
            mask = time_limit_mask(steps, horizon, act_dim, act_dim + self.task.obs_dim)

        def condition(x: Tensor) -> Tensor:
            x = x * mask
            x[:, 0, act_dim:] = first_observation
            return x

        return condition

    def _denoise(self, x: Tensor, diffusion_step: Tensor) -> Tensor:
        return self._clip(self.networks.denoiser(x, diffusion_step))

    def _clip(self, x: Tensor) -> Tensor:
        """Clips to the action space and to the range of the observed, if the settings say so."""
        clip = self.config.planner.clip
        return x.clamp(self.normalizer.low, self.normalizer.high) if clip else x

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

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"networks/{name}": t for name, t in self.networks.state_dict().items()}
        tensors |= {f"normalizer/{name}": t for name, t in vars(self.normalizer).items()}
        return tensors, {"config": asdict(self.config)}

    @classmethod
    def _from_state(
        cls,
        tensors: dict[str, Tensor],
        document: dict[str, Any],
        settings: dict[str, Any],
        **common: Any,
    ) -> "TrebiAgent":
        config = config_from_json(document["config"]).override_planner(**settings)
        task = common["task"]
        networks = TrebiNetworks(config.model, task.obs_dim, task.act_dim)
        parts: dict[str, dict[str, Tensor]] = {"networks": {}, "normalizer": {}}
        try:
            for name, tensor in tensors.items():
                group, _, key = name.partition("/")
                parts[group][key] = tensor
            networks.load_state_dict(parts["networks"])
            normalizer = Normalizer(**parts["normalizer"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"The checkpoint does not fit its own config: {error}") from error
        return cls(networks, normalizer, config, **common)
