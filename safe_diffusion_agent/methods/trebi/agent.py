"""The TREBI agent: plans for a budget that is given at every step (Lin et al. 2023, Alg. 1).

For a state, K candidate trajectories are drawn from the diffusion model, guided towards return and,
where they are predicted to overspend, away from cost. The best one that is predicted to keep the
remaining budget is chosen, and its first action executed. Next step, everything is done again.
"""

import math
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.agent import Agent, Parts, States
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.errors import warn
from safe_diffusion_agent.methods.trebi.calibration import Calibration, rest_of_episode
from safe_diffusion_agent.methods.trebi.config import PlannerConfig, TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.feasibility import Feasibility, keep_probability, safe_mass
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.plan import Candidates, Choice, Margin, Plan
from safe_diffusion_agent.methods.trebi.planner import Judge, Planner, Sampler, ValueJudge

JUDGES: dict[str, Any] = {"values": ValueJudge, "frontier": FrontierJudge}

# Sampled at once. Bounds the memory of planning for many states; more are not faster on a CPU.
MAX_TRAJECTORIES = 2048


class TrebiAgent(Agent):
    """Plans with a diffusion model to keep a budget: as far as its predictions of cost are right.

    Args:
        networks: Trained networks, of the judge's class.
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
    config_class: ClassVar[Any] = TrebiConfig
    changeable: ClassVar[tuple[str, ...]] = tuple(field.name for field in fields(PlannerConfig))
    config: TrebiConfig

    def __init__(
        self,
        networks: torch.nn.Module,
        normalizer: Normalizer,
        config: TrebiConfig,
        task: Task,
        calibration: Calibration | None = None,
        **common: Any,
    ):
        super().__init__(config, task, **common)
        self.networks: Any = networks.to(self.device).eval().requires_grad_(False)
        self.normalizer = normalizer.to(self.device)
        self.calibration = calibration
        self._margin = Margin(of_episode=config.planner.budget_margin * task.max_budget)
        if config.planner.risk is not None:
            if calibration is None:
                raise ValueError(
                    "The agent is not calibrated, so that risk should be None. Train it with "
                    "calibration_share=0.1 (or, with the frontier, calibration_episodes=60)."
                )
            self._margin += calibration.margin(config.planner.risk)
        critic: Any = getattr(networks, "critic", None)
        learned = self.about.get("branches", True) or bool(critic.imitates)
        if config.planner.num_candidates == 0 and not learned:
            warn(
                "The critic of this agent learned from the recorded episodes alone. Without "
                "candidates of the diffusion model it returns less, and is over budget more often: "
                "sampling_steps=5, num_candidates=4 is the next fastest."
            )
        schedule = NoiseSchedule.cosine(config.model.diffusion_steps, self.device)
        self.planner = planner_of(self.networks, schedule, self.normalizer, config, task)
        self.max_states = max(1, MAX_TRAJECTORIES // self.planner.judge.num_candidates)
        if config.model.network == "unet":
            self.few_states = 0  # large networks use all threads

    @property
    def cost_discount(self) -> float:
        """gamma_c of the remaining budgets that the agent expects."""
        return self.config.model.cost_discount or self.task.cost_discount

    @property
    def margin(self) -> float:
        """What is held back of a budget at the start of an episode, in cost units; >= 0."""
        return self._margin.at_start

    @property
    def budget_scale(self) -> float:
        """Factor on the budgets that an evaluation gives at the start of an episode."""
        return self.config.planner.budget_scale

    @property
    def looks_at_time(self) -> bool:
        """Whether the actions depend on how much of the episode is left."""
        return self.planner.judge.looks_at_time

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
            obs: `(O,)` or `(n, O)`, environment units.
            remaining_budget: z, a number or `(n,)`, in cost units; `math.inf` for no constraint.
            remaining_steps: Steps up to the time limit, this one included; a number or `(n,)`.
            generator: Gives the random numbers; None goes on with the agent's own.
            return_candidates: Also returns the trajectories that were not chosen.

        Raises:
            ValueError: A shape is wrong, an observation is not finite, or a budget is NaN.
            FloatingPointError: The networks gave no finite action.
        """
        states = self._check_inputs(obs, remaining_budget, remaining_steps)
        return self._plan(states, generator, return_candidates)

    def _plan(
        self, states: States, generator: torch.Generator | None, return_candidates: bool = False
    ) -> Plan:
        choice = Choice(*map(torch.cat, zip(*self._in_chunks(self._choose, states, generator))))
        candidates, budgets = self._candidates(choice), self._budgets(states[1])
        of_plan = (np.arange(len(candidates.chosen)), candidates.chosen)
        actions = candidates.actions[of_plan]
        self._check_finite(torch.from_numpy(actions[:, 0]))
        held_back = self._hold_back(self._margin, states[2])
        within = choice.costs <= (budgets - held_back)[:, None]
        least = choice.costs.nan_to_num(nan=math.inf).min(dim=1).values
        return Plan(
            actions=actions,
            observations=candidates.observations[of_plan],
            predicted_return=candidates.predicted_return[of_plan],
            predicted_cost=candidates.predicted_cost[of_plan],
            feasible=choice.feasible.cpu().numpy(),
            num_fitting=within.sum(dim=1).cpu().numpy(),
            least_cost=least.cpu().numpy(),
            remaining_budget=budgets.cpu().numpy(),
            margin=held_back.cpu().numpy(),
            keep_probability=keep_probability(self.calibration, self.task, budgets, least),
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
        """Estimates how likely a budget is kept from here, by the agent and by the data's behavior.

        Args:
            obs: `(O,)` or `(n, O)`, environment units.
            remaining_budget: z, a number or `(n,)`, in cost units.
            remaining_steps: Steps up to the time limit, this one included; a number or `(n,)`.
            num_samples: Trajectories of the behavior per state.
            generator: Gives the random numbers; None goes on with the agent's own.

        Raises:
            ValueError: A shape is wrong, an observation is not finite, or a budget is NaN.
        """
        states = self._check_inputs(obs, remaining_budget, remaining_steps)
        plan = self._plan(states, generator)
        given = (states[1].cpu(), torch.from_numpy(plan.least_cost))
        of_agent = keep_probability(self.calibration, self.task, *given)
        of_behavior = partial(safe_mass, self.planner.judge, self.calibration, num_samples)
        size = max(1, MAX_TRAJECTORIES // num_samples)
        masses = torch.cat(self._in_chunks(of_behavior, states, generator, size))
        return Feasibility(masses.cpu().numpy(), of_agent)

    def margin_for(self, risk: float, remaining_steps: npt.ArrayLike | None = None) -> Any:
        """Returns what this agent would hold back of a budget for another risk, in cost units.

        It is for whoever changes the risk between episodes, as `AdaptiveRisk` does: an agent loaded
        with `risk=None` is told `remaining_budget - agent.margin_for(risk, remaining_steps)`. A
        risk of 1 or more is no margin; one too small for the scores is an infinite one, with which
        every plan is the one that is predicted to cost least.

        Args:
            risk: Share of the episodes that may be over budget.
            remaining_steps: Steps up to the time limit, a number or `(n,)`. Where costs are
                discounted, what is for the episode grows with the remaining budget; what is for the
                rest of it shrinks. None: the first step.

        Returns:
            A number, or an array `(n,)` for an array of steps.

        Raises:
            ValueError: The agent is not calibrated.
        """
        if self.calibration is None:
            raise ValueError("The agent is not calibrated: there is no margin for a risk.")
        margin = Margin(math.inf if risk < self.calibration.least_risk else 0.0)
        if self.calibration.least_risk <= risk < 1.0:
            margin = self.calibration.margin(risk)
        first = self.task.max_episode_steps or math.inf
        steps = torch.as_tensor(first if remaining_steps is None else remaining_steps).float()
        held_back = self._hold_back(margin, steps)
        return held_back.item() if held_back.dim() == 0 else held_back.numpy()

    def _act(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        choice, act_dim = self._choose(obs, budget, steps, generator), self.task.act_dim
        rows = torch.arange(len(obs), device=obs.device)
        first = choice.trajectories[rows, choice.chosen, 0, :act_dim]
        return self.normalizer.to_environment(first, slice(act_dim))

    def _choose(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        allowed = self._budgets(budget) - self._hold_back(self._margin, steps)
        return self.planner(obs, allowed, steps, generator)

    def _hold_back(self, margin: Margin, steps: Tensor) -> Tensor:
        """Returns what a margin is with so many steps up to the time limit, `(n,)` each."""
        limit, decay = self.task.max_episode_steps, torch.ones_like(steps)
        if limit is not None:
            decay = self.cost_discount ** (limit - steps)
        held = margin.of_episode / decay.clamp_min(torch.finfo(decay.dtype).tiny) + margin.of_step
        if margin.of_rest:
            held += margin.of_rest * rest_of_episode(steps, self.task, self.cost_discount)
        return held

    def _budgets(self, given: Tensor) -> Tensor:
        """Returns the budgets to plan for, `(n,)`, margin included."""
        return given

    def _candidates(self, choice: Choice) -> Candidates:
        """Returns the candidates of all states, in environment units."""
        trajectories = self.normalizer.to_environment(choice.trajectories).cpu().numpy()
        actions, observations = np.split(trajectories, [self.task.act_dim], axis=-1)
        numbers = (choice.returns, choice.costs, choice.chosen)
        return Candidates(actions, observations, *(tensor.cpu().numpy() for tensor in numbers))

    def _parts(self) -> dict[str, Any]:
        parts = {"networks": self.networks, "normalizer": self.normalizer}
        return parts if self.calibration is None else parts | {"calibration": self.calibration}

    @classmethod
    def _from_parts(
        cls, parts: Parts, config: TrebiConfig, task: Task, **common: Any
    ) -> "TrebiAgent":
        networks = judge_of(config).networks_class(config.model, task)
        networks.load_state_dict(parts.pop("networks"))
        normalizer = Normalizer(**parts.pop("normalizer"))
        scores = parts.pop("calibration", None)
        calibration = None if scores is None else Calibration(**scores)
        return cls(networks, normalizer, config, task, calibration, **common)


class DiffuserAgent(TrebiAgent):
    """Plans as TREBI with an infinite budget: plain Diffuser (Janner et al. 2022), to compare."""

    method: ClassVar[str] = "diffuser"
    unread: ClassVar[tuple[str, ...]] = (
        *("penalty", "penalty_ramp", "budget_margin", "risk", "budget_scale"),
    )

    def _budgets(self, given: Tensor) -> Tensor:
        return torch.full_like(given, math.inf)


def judge_of(config: TrebiConfig) -> type[Judge]:
    """Returns the class of what rates plans; nothing else asks which judge it is."""
    judge: type[Judge] = JUDGES[config.model.judge]
    return judge


def planner_of(
    networks: torch.nn.Module,
    schedule: NoiseSchedule,
    normalizer: Normalizer,
    config: TrebiConfig,
    task: Task,
) -> Planner:
    """Returns the planner of networks, as they are now."""
    return Planner(judge_of(config)(Sampler(networks, schedule, normalizer, config, task)))
