"""What the agents of all baselines have in common: a network that maps states to actions."""

from abc import abstractmethod
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from safe_diffusion_agent.agent import FEW_STATES, Agent, FloatArray
from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.errors import CheckpointError, UnknownNameError
from safe_diffusion_agent.learning.transitions import Scaling
from safe_diffusion_agent.settings import check, from_json, override

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the paper's evaluation
LARGEST = 1e30  # stands for an infinite budget where distances between budgets are taken
MAX_STATES = 1024  # acted on at once; bounds the memory of acting on many states


class BaselineAgent(Agent):
    """An agent whose actions come straight from its networks.

    Args:
        networks: Trained networks, as `build` makes them.
        scaling: The one they were trained with.
        config: Settings.
        task: What they were trained for.
        **common: `about`, `device` and `seed` of `Agent`.

    Attributes:
        config_class: Class of its settings.
        changeable: Names of the settings that training leaves open.
    """

    config_class: ClassVar[Any]
    changeable: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, networks: nn.Module, scaling: Scaling, config: Any, task: Task, **common: Any
    ):
        super().__init__(task, **common)
        self.networks: Any = networks.to(self.device).eval().requires_grad_(False)
        self.scaling = scaling.to(self.device)
        self.config = config

    @classmethod
    @abstractmethod
    def build(cls, config: Any, task: Task) -> nn.Module:
        """Makes untrained networks."""

    @abstractmethod
    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Actions in [-1, 1], `(n, A)`, for scaled observations `(n, O)`, z and k `(n,)`."""

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """See `Agent.act`."""
        states, budgets, steps = self._check_inputs(obs, remaining_budget, remaining_steps)
        generator = self.generator if generator is None else generator
        with torch.no_grad(), one_thread(len(states) <= FEW_STATES):
            chunks = [
                self._actions(self.scaling.observations(rows), budget, left, generator)
                for rows, budget, left in zip(
                    states.split(MAX_STATES),
                    budgets.split(MAX_STATES),
                    steps.split(MAX_STATES),
                    strict=True,
                )
            ]
            actions = self.scaling.to_environment(torch.cat(chunks)).cpu().numpy()
        if not np.isfinite(actions).all():
            raise FloatingPointError(
                "The networks give no finite action. Check that the observation is like those in "
                "the training data, or train again with a smaller learning rate."
            )
        return actions[0] if np.ndim(obs) == 1 else actions

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"networks/{name}": t for name, t in self.networks.state_dict().items()}
        tensors |= {f"scaling/{name}": t for name, t in vars(self.scaling).items()}
        return tensors, {"config": asdict(self.config)}

    @classmethod
    def _from_state(
        cls,
        tensors: dict[str, Tensor],
        document: dict[str, Any],
        settings: dict[str, Any],
        **common: Any,
    ) -> "BaselineAgent":
        for name in settings:
            if name not in cls.changeable:
                raise UnknownNameError("setting that training leaves open", name, cls.changeable)
        config = override(from_json(cls.config_class, document["config"]), settings)
        networks = cls.build(config, common["task"])
        parts: dict[str, dict[str, Tensor]] = {"networks": {}, "scaling": {}}
        try:
            for name, tensor in tensors.items():
                group, _, key = name.partition("/")
                parts[group][key] = tensor
            networks.load_state_dict(parts["networks"])
            scaling = Scaling(**parts["scaling"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"The checkpoint does not fit its own config: {error}") from error
        return cls(networks, scaling, config, **common)


def check_ratios(ratios: tuple[float, ...]) -> None:
    """Raises a ValueError if these are no budgets to train for; infinity means no constraint."""
    valid = bool(ratios) and all(ratio >= 0.0 for ratio in ratios)
    check(valid, "ratios should be one number or more, each >= 0", ratios)


class PerBudgetAgent(BaselineAgent):
    """An agent with one set of networks per budget; its config has `ratios`.

    `networks` is a list of what `build_one` makes, in the order of the ratios.
    """

    @classmethod
    @abstractmethod
    def build_one(cls, config: Any, task: Task) -> nn.Module:
        """Makes untrained networks for one budget."""

    @classmethod
    def build(cls, config: Any, task: Task) -> nn.Module:
        """See `BaselineAgent.build`."""
        return nn.ModuleList([cls.build_one(config, task) for _ in config.ratios])

    @abstractmethod
    def _actions_of(self, networks: Any, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Actions in [-1, 1], `(n, A)`, of one budget's networks for scaled observations."""

    def for_budget(self, budget: float) -> "PerBudgetAgent":
        """See `Agent.for_budget`: the networks trained for the nearest budget, and no others."""
        budgets = np.array(self._budgets())
        index = int(np.abs(budgets - min(budget, budgets.max())).argmin())
        config = replace(self.config, ratios=(self.config.ratios[index],))
        common: dict[str, Any] = {"about": self.about, "device": self.device, "seed": self.seed}
        networks = nn.ModuleList([self.networks[index]])
        return type(self)(networks, self.scaling, config, self.task, **common)

    def _budgets(self) -> list[float]:
        return [min(ratio * self.task.max_budget, LARGEST) for ratio in self.config.ratios]

    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del steps
        budgets = torch.tensor(self._budgets(), device=obs.device)
        distance = (budget.clamp(0.0, float(budgets.max()))[:, None] - budgets).abs()
        nearest = distance.argmin(dim=1)
        actions = obs.new_zeros(len(obs), self.task.act_dim)
        for index, networks in enumerate(self.networks):
            rows = nearest == index
            if rows.any():
                actions[rows] = self._actions_of(networks, obs[rows], generator)
        return actions
