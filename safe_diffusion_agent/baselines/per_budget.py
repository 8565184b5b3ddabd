"""Methods whose budget is fixed in training: one set of networks per budget.

The paper retrains BCQ-Lagrangian and CPQ "for each budget" (Lin et al. 2023, Sec. 5.1). Here one
agent holds the networks of all its budgets. Those of one budget do not look at what remains of it,
so what selects them should be the budget that the episode starts with: `for_budget`. `act` alone
knows no more than the remaining budget, and takes the networks whose budget is nearest to that.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from safe_diffusion_agent.baselines.agent import BaselineAgent
from safe_diffusion_agent.baselines.fitting import (
    History,
    Training,
    TrainingData,
    agent_of,
    train_networks,
)
from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.training import Progress
from safe_diffusion_agent.settings import check

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the paper's evaluation
LARGEST = 1e30  # stands for an infinite budget where distances between budgets are taken


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


AgentType = TypeVar("AgentType", bound=PerBudgetAgent)


def fit_per_budget(
    agent_class: type[AgentType],
    episodes: Episodes,
    config: Any,
    training_of: Callable[[Any, Any, Task], Training],
    *,
    seed: int = 0,
    device: str = "auto",
    state_path: Path | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[AgentType, History]:
    """Trains one set of networks per budget, one after the other; see `fit_networks`.

    A budget's state is kept beside `state_path`, its ratio in the name. The logged losses are the
    means over the budgets.
    """
    data = TrainingData.of(episodes, resolve_device(device))
    networks, histories = nn.ModuleList(), []
    for index, ratio in enumerate(config.ratios):
        path = state_path and state_path.with_stem(f"{state_path.stem}-{ratio:g}")
        trained, history = train_networks(
            agent_class.method,
            data,
            replace(config, ratios=(ratio,)),
            build=lambda: agent_class.build_one(config, data.task),
            training_of=training_of,
            seed=seed,
            state_path=path,
            save_interval=save_interval,
            progress=_part(progress, index, len(config.ratios)),
        )
        networks.append(trained)
        histories.append(history)
    means = [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for rows in zip(*histories, strict=True)
    ]
    return agent_of(agent_class, networks, config, data, means, seed), means


def _part(progress: Progress | None, index: int, num_parts: int) -> Progress | None:
    """Progress of one of several trainings of the same length."""
    if progress is None:
        return None
    return lambda done, total, **values: progress(index * total + done, num_parts * total, **values)
