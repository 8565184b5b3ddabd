"""Trains the networks of a baseline: what their `fit` functions share."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.training import Loss, OptimizationConfig, Progress, optimize
from safe_diffusion_agent.learning.transitions import Batch, Scaling, Transitions
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent, PerBudgetAgent
from safe_diffusion_agent.methods.baselines.config import TrainingConfig
from safe_diffusion_agent.storage import provenance

AgentType = TypeVar("AgentType", bound=BaselineAgent)
History = list[dict[str, float]]


class FitOptions(TypedDict, total=False):
    """Optional arguments of `fit_networks` and of every baseline's `fit`."""

    seed: int
    device: str
    state_path: Path | None
    save_interval: int
    progress: Progress | None


class Training(nn.Module):
    """Networks in training, with what only the training needs: targets, value functions.

    Args:
        networks: What the agent will act with.

    Attributes:
        learning_rates: By the beginning of the parameters' names.
    """

    learning_rates: Mapping[str, float]

    def __init__(self, networks: nn.Module):
        super().__init__()
        self.networks: Any = networks

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of a batch; each reaches the parameters of its own network only."""

    def after_step(self) -> None:
        """Moves what no gradient moves, after every optimiser step."""


def fit_networks(
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
    """Trains networks on a dataset and makes an agent of them.

    Args:
        agent_class: The agent.
        episodes: The dataset.
        config: Settings of the method; its `training` is a `TrainingConfig`.
        training_of: Puts new networks into what trains them, with the config and the task.
        seed: Fixes initial weights and batches.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        state_path: See `optimize`.
        save_interval: See `optimize`.
        progress: See `optimize`.

    Returns:
        The agent, and the logged losses.

    Raises:
        ValueError: The settings do not fit the dataset.
        CheckpointError: `state_path` belongs to another training.
    """
    data = TrainingData.of(episodes, resolve_device(device))
    networks, history = train_networks(
        agent_class.method,
        data,
        config,
        build=lambda: agent_class.build(config, data.task),
        training_of=training_of,
        seed=seed,
        state_path=state_path,
        save_interval=save_interval,
        progress=progress,
    )
    return agent_of(agent_class, networks, config, data, history, seed), history


@dataclass(frozen=True)
class TrainingData:
    """A dataset as the networks see it.

    Attributes:
        episodes: The dataset.
        task: Its task.
        scaling: Its scaling.
        transitions: Its transitions, on the device.
        device: The device.
    """

    episodes: Episodes
    task: Task
    scaling: Scaling
    transitions: Transitions
    device: torch.device

    @classmethod
    def of(cls, episodes: Episodes, device: torch.device) -> "TrainingData":
        """Prepares a dataset."""
        scaling = Scaling.fit(episodes)
        transitions = Transitions(episodes, scaling, device)
        return cls(episodes, Task.of(episodes), scaling, transitions, device)


def train_networks(
    method: str,
    data: TrainingData,
    config: Any,
    *,
    build: Callable[[], nn.Module],
    training_of: Callable[[Any, Any, Task], Training],
    seed: int,
    state_path: Path | None,
    save_interval: int,
    progress: Progress | None,
) -> tuple[nn.Module, History]:
    """Trains new networks; see `fit_networks`. `build` makes them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # PyTorch initialises weights from its global generator
        training = training_of(build(), config, data.task)
    identity = {"method": method, "config": asdict(config), "task": asdict(data.task), "seed": seed}
    trained, history = optimize(
        training.to(data.device),
        _loss(data.transitions, config.training.batch_size),
        _optimization(config.training),
        generator=torch.Generator(data.device).manual_seed(seed),
        learning_rates=training.learning_rates,
        after_step=_after_step,
        state_path=state_path,
        identity=identity,
        save_interval=save_interval,
        progress=progress,
    )
    networks: nn.Module = trained.get_submodule("networks")
    return networks, history


def agent_of(
    agent_class: type[AgentType],
    networks: nn.Module,
    config: Any,
    data: TrainingData,
    history: History,
    seed: int,
) -> AgentType:
    """The agent of trained networks, with what is known of its origin."""
    about = {
        "seed": seed,
        "behavior_policy": data.episodes.metadata.get("behavior_policy"),
        "losses": history[-1],
        "provenance": provenance(),
    }
    return agent_class(networks, data.scaling, config, data.task, about=about, device=data.device)


def _loss(transitions: Transitions, batch_size: int) -> Loss:
    def loss(training: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(training, Training)
        losses = training.losses(transitions.sample(batch_size, generator), generator)
        total = torch.stack(list(losses.values())).sum()
        return total, {name: value.detach() for name, value in losses.items()}

    return loss


def _after_step(training: nn.Module) -> None:
    assert isinstance(training, Training)
    training.after_step()


def _optimization(training: TrainingConfig) -> OptimizationConfig:
    """Plain Adam: the average of the weights is what they are at the last step."""
    return OptimizationConfig(
        num_steps=training.num_steps,
        accumulate=1,
        learning_rate=training.critic_learning_rate,
        decay_from=1.0,
        ema_decay=0.0,
        ema_interval=training.num_steps,
        ema_start=0,
    )


PerBudgetAgentType = TypeVar("PerBudgetAgentType", bound=PerBudgetAgent)


def fit_per_budget(
    agent_class: type[PerBudgetAgentType],
    episodes: Episodes,
    config: Any,
    training_of: Callable[[Any, Any, Task], Training],
    *,
    seed: int = 0,
    device: str = "auto",
    state_path: Path | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[PerBudgetAgentType, History]:
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
