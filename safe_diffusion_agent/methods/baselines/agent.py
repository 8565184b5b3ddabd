"""What the agents of all baselines have in common: networks that map states to actions.

Methods whose budget is fixed in training are retrained "for each budget" (Lin et al. 2023, Sec.
5.1). Here one agent holds the networks of all its budgets. Those of one budget do not look at what
remains of it, so what selects them should be the budget that the episode starts with: `for_budget`.
`act` alone knows no more than the remaining budget, and takes the networks nearest to that.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from safe_diffusion_agent.agent import Agent, Parts
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.transitions import UnitNormalizer

LARGEST = 1e30  # stands for an infinite budget where distances between budgets are taken


class BaselineAgent(Agent):
    """An agent whose actions come straight from its networks.

    Args:
        networks: Trained networks, as `build` makes them; with `per_budget` a list of them, in the
            order of the config's `ratios`.
        normalizer: The one they were trained with.
        config: Settings.
        task: What they were trained for.
        **common: `about`, `device` and `seed` of `Agent`.

    Attributes:
        training_class: Trains the networks; made with networks, config and task.
        per_budget: Whether there are networks for each of the config's `ratios`.
    """

    training_class: ClassVar[Any]
    per_budget: ClassVar[bool] = False

    def __init__(
        self,
        networks: nn.Module,
        normalizer: UnitNormalizer,
        config: Any,
        task: Task,
        **common: Any,
    ):
        super().__init__(config, task, **common)
        self.networks: Any = networks.to(self.device).eval().requires_grad_(False)
        self.normalizer = normalizer.to(self.device)

    @classmethod
    @abstractmethod
    def build(cls, config: Any, task: Task) -> nn.Module:
        """Returns untrained networks, for one budget if there are networks for each."""

    @classmethod
    def fit_normalizer(cls, episodes: Episodes, config: Any) -> UnitNormalizer:
        """Returns what the networks see of a dataset's observations and actions.

        Args:
            episodes: The dataset.
            config: Settings, which may ask for something else.
        """
        del config
        return UnitNormalizer.fit(episodes)

    @abstractmethod
    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns actions in [-1, 1], `(n, A)`, for normalized observations `(n, O)`."""

    def for_budget(self, budget: float) -> "BaselineAgent":
        """Returns an agent with the networks for the nearest budget, if there are some for each.

        Args:
            budget: At the start of the episode, in cost units.
        """
        if not self.per_budget:
            return self
        budgets = torch.tensor(self._budgets(), dtype=torch.float64)
        index = int((budgets - min(budget, float(budgets.max()))).abs().argmin())
        config = replace(self.config, ratios=(self.config.ratios[index],))
        common: dict[str, Any] = {"about": self.about, "device": self.device, "seed": self.seed}
        networks = nn.ModuleList([self.networks[index]])
        return type(self)(networks, self.normalizer, config, self.task, **common)

    def _budgets(self) -> list[float]:
        return [min(ratio * self.task.max_budget, LARGEST) for ratio in self.config.ratios]

    def _act(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        obs = self.normalizer.observations(obs)
        if not self.per_budget:
            actions = self._choose(self.networks, obs, budget, steps, generator)
            return self.normalizer.to_environment(actions)
        budgets = torch.tensor(self._budgets(), device=obs.device)
        lowest = float(budgets.min()) if self.task.costs_may_be_negative else 0.0
        distance = (budget.clamp(lowest, float(budgets.max()))[:, None] - budgets).abs()
        nearest = distance.argmin(dim=1)
        actions = obs.new_zeros(len(obs), self.task.act_dim)
        for index, networks in enumerate(self.networks):
            rows = nearest == index
            if rows.any():
                of_rows = (obs[rows], budget[rows], steps[rows])
                actions[rows] = self._choose(networks, *of_rows, generator)
        return self.normalizer.to_environment(actions)

    def _parts(self) -> dict[str, Any]:
        return {"networks": self.networks, "scaling": self.normalizer}

    @classmethod
    def _from_parts(cls, parts: Parts, config: Any, task: Task, **common: Any) -> Self:
        networks = cls.build(config, task)
        if cls.per_budget:
            networks = nn.ModuleList([cls.build(config, task) for _ in config.ratios])
        networks.load_state_dict(parts.pop("networks"))
        normalizer = UnitNormalizer(**parts.pop("scaling"))
        return cls(networks, normalizer, config, task, **common)
