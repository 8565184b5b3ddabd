"""Trains the networks of a baseline, for one budget after the other where each has its own."""

from abc import abstractmethod
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.networks import new_networks
from safe_diffusion_agent.learning.training import (
    History,
    OptimizationConfig,
    Progress,
    Training,
    optimize,
)
from safe_diffusion_agent.learning.transitions import Batch, Transitions
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.storage import origin

AgentType = TypeVar("AgentType", bound=BaselineAgent)


class BaselineTraining(Training):
    """Trains networks on single transitions.

    Args:
        networks: What the agent will act with.
        config: Settings of the method; its `training` is a `TrainingConfig`.

    Attributes:
        transitions: The data; set before the training.
    """

    transitions: Transitions

    def __init__(self, networks: nn.Module, config: Any):
        super().__init__(networks)
        self.config = config

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one random batch."""
        batch = self.transitions.sample(self.config.training.batch_size, generator)
        return self.batch_losses(batch, generator)

    @abstractmethod
    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of a batch; each reaches the parameters of its own network only."""


def fit(
    agent_class: type[AgentType],
    episodes: Episodes,
    config: Any,
    *,
    seed: int = 0,
    device: str = "auto",
    state_path: Path | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[AgentType, History]:
    """Trains an agent on a dataset.

    Args:
        agent_class: Class of the agent.
        episodes: The dataset.
        config: Settings of the method.
        seed: Fixes initial weights and batches.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        state_path: File to continue from and to save to; with a budget's ratio in its name where
            each budget has networks of its own. None neither saves nor continues.
        save_interval: Optimizer steps between saves.
        progress: Called after every step as `progress(done, total, <losses>)`.

    Returns:
        The agent, and the logged losses: their means over the budgets where there are several.

    Raises:
        ValueError: The settings do not fit the dataset.
        CheckpointError: `state_path` belongs to another training.
    """
    torch_device, task = resolve_device(device), Task.of(episodes)
    normalizer = agent_class.fit_normalizer(episodes, config)
    transitions = Transitions(episodes, normalizer, torch_device)
    parts = _parts(config, state_path) if agent_class.per_budget else [(config, state_path)]
    trained, histories = [], []
    for index, (of_part, path) in enumerate(parts):
        training = new_networks(partial(_training, agent_class, of_part, task), seed)
        training = training.to(torch_device)
        training.transitions = transitions
        identity = {"config": asdict(of_part), "task": asdict(task), "seed": seed}
        networks, history = optimize(
            training,
            OptimizationConfig(
                num_steps=config.training.num_steps,
                learning_rate=config.training.critic_learning_rate,
            ),
            generator=torch.Generator(torch_device).manual_seed(seed),
            state_path=path,
            identity={"method": agent_class.method, **identity},
            save_interval=save_interval,
            progress=_part_progress(progress, index, len(parts)),
        )
        trained.append(networks)
        histories.append(history)
    if agent_class.per_budget:
        networks, history = nn.ModuleList(trained), _means(histories)
    about = origin(seed, history[-1], episodes.metadata.get("behavior_policy"))
    return agent_class(
        networks, normalizer, config, task, about=about, device=torch_device
    ), history


def _parts(config: Any, state_path: Path | None) -> list[tuple[Any, Path | None]]:
    """Returns the config of every budget's own training, and the file to continue it from."""
    return [
        (
            replace(config, ratios=(ratio,)),
            state_path and state_path.with_stem(f"{state_path.stem}-{ratio:g}"),
        )
        for ratio in config.ratios
    ]


def _training(agent_class: Any, config: Any, task: Task) -> BaselineTraining:
    training: BaselineTraining = agent_class.training_class(
        agent_class.build(config, task), config, task
    )
    return training


def _means(histories: list[History]) -> History:
    """Returns the mean of several loss curves, step by step."""
    return [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for rows in zip(*histories, strict=True)
    ]


def _part_progress(progress: Progress | None, index: int, num_parts: int) -> Progress | None:
    """Returns the progress of one of several trainings of the same length."""
    if progress is None:
        return None
    return lambda done, total, **values: progress(index * total + done, num_parts * total, **values)
