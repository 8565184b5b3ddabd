"""The trainings that latency.py times: ours and the plain way, on the same networks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from latency_planners import config_of, gigaflop_of, random_episodes
from plain import PlainDataset, PlainTraining

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.methods.table import METHODS

# The small networks of `quick`, trained as the paper trains.
MLP_AS_PAPER = {"network": "mlp", "diffusion_steps": 10}
NUM_STEPS = {"U-Net": 3, "MLP": 30}  # optimizer steps that are timed at once
TIMES_ON_A_GPU = 20  # more of them there: recording once should not count much


@dataclass(frozen=True)
class TrainingCase:
    """A sample is a trajectory that all three networks were trained on once.

    Attributes:
        networks: In the tables.
        ours: Trains, and returns the seconds that the steps took; is given the clock.
        plain: Trains.
        num_samples: Of all steps.
    """

    networks: str
    ours: Callable[[Callable[[], float]], float]
    plain: Callable[[], object]
    num_samples: int

    def gigaflop_per_sample(self) -> float:
        """Forward and backward."""
        return gigaflop_of(self.plain) / self.num_samples


def training_cases(task: Task, device: torch.device, small: bool) -> list[TrainingCase]:
    episodes, result = random_episodes(task), []
    for name, settings in (("U-Net", {}), ("MLP", MLP_AS_PAPER)):
        num_steps = 1 if small else NUM_STEPS[name]
        if device.type == "cuda":
            num_steps *= TIMES_ON_A_GPU
        settings = settings | ({"batch_size": 2} if small else {})
        on_gpu = {"recorded_training": True} if device.type == "cuda" else {}
        config = config_of(
            "paper", task, small, ema_start=0, num_steps=num_steps + 1, **settings | on_gpu
        )
        plain = _plain_training(config, episodes, task, device)
        result.append(
            TrainingCase(
                networks=name,
                ours=partial(seconds_of_training, config, episodes, device),
                plain=lambda plain=plain, num=num_steps: [plain.step() for _ in range(num)],
                num_samples=num_steps * config.training.batch_size * config.training.accumulate,
            )
        )
    return result


def seconds_of_training(
    config: Any,
    episodes: Episodes,
    device: torch.device,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Trains new networks; returns the seconds between the ends of the first and the last step."""
    times = []

    def progress(done: int, total: int, **_: float) -> None:
        if done in (1, total):
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(now())

    METHODS["trebi"].fit(episodes, config, device=str(device), progress=progress)
    return times[-1] - times[0]


def _plain_training(
    config: Any, episodes: Episodes, task: Task, device: torch.device
) -> PlainTraining:
    last = np.cumsum(episodes.lengths + 1) - 1
    observations = np.delete(episodes.observations, last, axis=0)
    rows = np.concatenate([episodes.actions, observations], axis=1)
    dataset = PlainDataset(rows, episodes.rewards, int(episodes.lengths[0]), config.model.horizon)
    one_step = replace(config, training=replace(config.training, num_steps=1, batch_size=2))
    agent: Any = METHODS["trebi"].fit(episodes, one_step, device=str(device))[0]
    return PlainTraining(agent.networks.requires_grad_(True), dataset, task.act_dim, config)
