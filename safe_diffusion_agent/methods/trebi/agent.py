"""The TREBI agent: plans that keep a budget which is given at every step (Lin et al. 2023, Alg. 1).

For a state, K candidate trajectories are drawn from the diffusion model, guided towards return and,
where they are predicted to overspend, away from cost. The best one that is predicted to keep the
remaining budget is chosen, and its first action executed. Next step, everything is done again.
"""

import math
import warnings
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.agent import FEW_STATES, Agent, FloatArray
from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.config import TrebiConfig, config_from_json
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, Schedule
from safe_diffusion_agent.methods.trebi.feasibility import Feasibility, keep_probability, safe_mass
from safe_diffusion_agent.methods.trebi.frontier.planner import FrontierPlanner
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks
from safe_diffusion_agent.methods.trebi.plan import Candidates, Plan
from safe_diffusion_agent.methods.trebi.planner import Choice, GuidedPlanner

# Sampled at once. Bounds the memory of planning for many states; more are not faster on a CPU.
MAX_TRAJECTORIES = 2048


class TrebiAgent(Agent):
    """Plans with a diffusion model so that every episode keeps its budget.

    Args:
        networks: Trained networks.
        normalizer: The one they were trained with.
        config: Settings.
        task: What they were trained for.
        calibration: What the margin for `config.planner.risk` is taken from.
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
        calibration: Calibration | None = None,
        **common: Any,
    ):
        super().__init__(task, **common)
        self.networks = networks.to(self.device).eval().requires_grad_(False)
        self.normalizer = normalizer.to(self.device)
        self.config = config
        self.calibration = calibration
        self.margin = config.planner.budget_margin * task.max_budget
        if config.planner.risk is not None:
            if calibration is None:
                raise ValueError(
                    "The agent is not calibrated, so that risk should be None. Train it with "
                    "calibration_share=0.1 (or, with the frontier, calibration_episodes=60)."
                )
            self.margin += calibration.margin(config.planner.risk)
        if config.planner.num_candidates == 0 and not self.about.get("branches", True):
            warnings.warn(
                "The critic of this agent learned from the recorded episodes alone. Without "
                "candidates of the diffusion model it returns less, and is over budget more often: "
                "sampling_steps=5, num_candidates=4 is the next fastest.",
                stacklevel=4,
            )
        schedule = Schedule.cosine(config.model.diffusion_steps, self.device)
        self.planner = (GuidedPlanner if config.model.judge == "values" else FrontierPlanner)(
            self.networks, schedule, self.normalizer, config, task
        )

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
        return self.config.model.time_to_go or self.config.model.judge == "frontier"

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """The first action of `plan`, clipped to the action space; see `Agent.act`.

        The paper does not say what becomes of actions outside of it, which without
        `PlannerConfig.clip` can be far away.
        """
        plan = self.plan(obs, remaining_budget, remaining_steps, generator=generator)
        bounds = np.array([self.task.action_low, self.task.action_high], np.float32)
        actions = np.clip(plan.actions[:, 0], *bounds)
        return actions[0] if np.ndim(obs) == 1 else actions

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

        Any number of states will do: `MAX_TRAJECTORIES` candidates are sampled at a time, which
        bounds the memory (benchmarks/latency.py has that of one).

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
        allowed = budgets - self.margin
        chunk_size = max(1, MAX_TRAJECTORIES // self.planner.num_candidates)
        chunks: list[Choice] = []
        small = len(states) <= FEW_STATES and self.config.model.network == "mlp"
        with torch.no_grad(), one_thread(small):
            for first in range(0, len(states), chunk_size):
                rows = slice(first, first + chunk_size)
                inputs = (states[rows], allowed[rows], steps[rows])
                chunks.append(self.planner(*inputs, generator))
        trajectories, returns, costs, chosen, feasible = (
            torch.cat(parts) for parts in zip(*chunks, strict=True)
        )
        candidates = self._candidates(trajectories, returns, costs, chosen)
        of_plan = (np.arange(len(states)), candidates.chosen)
        if not np.isfinite(candidates.actions[of_plan][:, 0]).all():
            raise FloatingPointError(
                "The plan has no finite action. Lower the penalty or the guidance_scale, or check "
                "that the observation is like those in the training data."
            )
        return Plan(
            actions=candidates.actions[of_plan],
            observations=candidates.observations[of_plan],
            predicted_return=candidates.predicted_return[of_plan],
            predicted_cost=candidates.predicted_cost[of_plan],
            feasible=feasible.cpu().numpy(),
            num_fitting=(costs <= allowed[:, None]).sum(dim=1).cpu().numpy(),
            least_cost=costs.nan_to_num(nan=math.inf).min(dim=1).values.cpu().numpy(),
            remaining_budget=budgets.cpu().numpy(),
            margin=self.margin,
            forecast=partial(keep_probability, self.calibration),
            candidates=candidates if return_candidates else None,
        )

    def feasibility(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        num_samples: int = 64,
        generator: torch.Generator | None = None,
    ) -> Feasibility:
        """How likely the budget is kept from here, by the agent and by the data's behavior.

        Args:
            obs: See `Agent.act`.
            remaining_budget: See `Agent.act`.
            remaining_steps: See `Agent.act`.
            num_samples: Trajectories of the behavior per state.
            generator: See `Agent.act`.

        Raises:
            ValueError: See `Agent.act`.
        """
        states, budgets, steps = self._check_inputs(obs, remaining_budget, remaining_steps)
        generator = self.generator if generator is None else generator
        keeps = self.plan(obs, remaining_budget, remaining_steps, generator=generator)
        masses = []
        with torch.no_grad():
            for rows in torch.arange(len(states)).split(max(1, MAX_TRAJECTORIES // num_samples)):
                of_rows = (states[rows], budgets[rows], steps[rows])
                masses.append(
                    safe_mass(self.planner, self.calibration, *of_rows, num_samples, generator)
                )
        return Feasibility(torch.cat(masses).cpu().numpy(), keeps.keep_probability)

    def margin_for(self, risk: float) -> float:
        """What this agent would hold back of a budget for another risk, in cost units.

        It is for whoever changes the risk between episodes (see `AdaptiveRisk`): an agent loaded
        with `risk=None` is told `remaining_budget - agent.margin_for(risk)`. A risk of 1 or more is
        no margin; one too small for the scores is an infinite one, with which every plan is the one
        that is predicted to cost least.

        Raises:
            ValueError: The agent is not calibrated.
        """
        if self.calibration is None:
            raise ValueError("The agent is not calibrated: there is no margin for a risk.")
        if risk >= 1.0:
            return 0.0
        return math.inf if risk < self.calibration.least_risk else self.calibration.margin(risk)

    def _candidates(
        self, trajectories: Tensor, returns: Tensor, costs: Tensor, chosen: Tensor
    ) -> Candidates:
        """The candidates of all states, in environment units."""
        unnormalized = self.normalizer.unnormalize(trajectories).cpu().numpy()
        actions, observations = np.split(unnormalized, [self.task.act_dim], axis=-1)
        numbers = (tensor.cpu().numpy() for tensor in (returns, costs, chosen))
        return Candidates(actions, observations, *numbers)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"networks/{name}": t for name, t in self.networks.state_dict().items()}
        tensors |= {f"normalizer/{name}": t for name, t in vars(self.normalizer).items()}
        if self.calibration is not None:
            scores = {name: t for name, t in vars(self.calibration).items() if t is not None}
            tensors |= {f"calibration/{name}": t for name, t in scores.items()}
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
        networks = TrebiNetworks(config.model, task)
        parts: dict[str, dict[str, Tensor]] = {"networks": {}, "normalizer": {}, "calibration": {}}
        try:
            for name, tensor in tensors.items():
                group, _, key = name.partition("/")
                parts[group][key] = tensor
            networks.load_state_dict(parts["networks"])
            normalizer = Normalizer(**parts["normalizer"])
            scores = parts["calibration"]
            calibration = Calibration(**scores) if scores else None
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"The checkpoint does not fit its own config: {error}") from error
        return cls(networks, normalizer, config, calibration=calibration, **common)


class DiffuserAgent(TrebiAgent):
    """TREBI that is always given an infinite budget."""

    method: ClassVar[str] = "diffuser"

    @classmethod
    def of(cls, agent: TrebiAgent) -> "DiffuserAgent":
        """The same networks, unconstrained."""
        parts = (agent.networks, agent.normalizer, agent.config, agent.task, agent.calibration)
        return cls(*parts, about=agent.about, device=agent.device, seed=agent.seed)

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        **options: Any,
    ) -> FloatArray:
        """See `Agent.act`; the budget is checked, and then ignored."""
        self._check_inputs(obs, remaining_budget, remaining_steps)
        return super().act(obs, math.inf, remaining_steps, **options)
