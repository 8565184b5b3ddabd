"""The trainings that benchmarks/latency.py times: ours and the plain way, on the same networks."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from latency_planners import SMALL
from plain import PlainDataset, PlainTraining
from torch.utils.flop_counter import FlopCounterMode

from safe_diffusion_agent.compute import record_cuda_graph
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.training import OptimizationConfig, optimize
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, Schedule
from safe_diffusion_agent.methods.trebi.fit import TrebiLoss
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks
from safe_diffusion_agent.methods.trebi.presets import preset_config
from safe_diffusion_agent.methods.trebi.windows import Windows

NUM_EPISODES = 20
# The small networks of `quick`, trained as the paper trains.
MLP_AS_PAPER = {"network": "mlp", "diffusion_steps": 10}
NUM_STEPS = {"U-Net": 3, "MLP": 30}  # optimiser steps that are timed at once
TIMES_ON_A_GPU = 20  # more of them there: recording once should not count much


@dataclass(frozen=True)
class TrainingCase:
    """A sample is a trajectory that all three networks were trained on once."""

    networks: str
    ours: Callable[[], object]
    plain: Callable[[], object]
    num_samples: int

    def gigaflop_per_sample(self) -> float:
        """Forward and backward, by PyTorch's counter, which does not see replays."""
        with FlopCounterMode(display=False) as counter:
            self.plain()
        return counter.get_total_flops() / 1e9 / self.num_samples


def training_cases(task: Task, device: torch.device, small: bool) -> list[TrainingCase]:
    episodes = random_episodes(task)
    result = []
    for name, settings in (("U-Net", {}), ("MLP", MLP_AS_PAPER)):
        config = preset_config("paper", task.env_id, **settings).override(ema_start=0)
        if small:
            config = config.override(**SMALL, batch_size=2)
        num_steps = 1 if small else NUM_STEPS[name]
        if device.type == "cuda":
            num_steps *= TIMES_ON_A_GPU
        training, plain = config.training, _plain_training(config, episodes, task, device)
        result.append(
            TrainingCase(
                networks=name,
                ours=our_training(config, episodes, task, device, num_steps),
                plain=lambda plain=plain, num_steps=num_steps: [
                    plain.step() for _ in range(num_steps)
                ],
                num_samples=num_steps * training.batch_size * training.accumulate,
            )
        )
    return result


def our_training(
    config: TrebiConfig, episodes: Episodes, task: Task, device: torch.device, num_steps: int
) -> Callable[[], object]:
    """A call that trains new networks for some steps."""
    normalizer = Normalizer.fit(
        episodes.actions, episodes.observations, episodes.action_low, episodes.action_high
    )
    windows = Windows(
        episodes, normalizer, config.model.horizon, discount=0.99, cost_discount=0.99,
        coverage=config.training.windows, device=device,
    )  # fmt: skip
    loss = TrebiLoss(windows, Schedule.cosine(config.model.diffusion_steps, device), config, task)
    settings = {f.name: getattr(config.training, f.name) for f in fields(OptimizationConfig)}
    networks = TrebiNetworks(config.model, task).to(device)
    generator = torch.Generator(device).manual_seed(0)
    optimization = replace(OptimizationConfig(**settings), num_steps=num_steps)
    record = record_cuda_graph if device.type == "cuda" else None
    return lambda: optimize(networks, loss, optimization, generator=generator, record=record)


def _plain_training(
    config: TrebiConfig, episodes: Episodes, task: Task, device: torch.device
) -> PlainTraining:
    last = np.cumsum(episodes.lengths + 1) - 1
    observations = np.delete(episodes.observations, last, axis=0)
    rows = np.concatenate([episodes.actions, observations], axis=1)
    dataset = PlainDataset(rows, episodes.rewards, int(episodes.lengths[0]), config.model.horizon)
    networks = TrebiNetworks(config.model, task).to(device)
    return PlainTraining(networks, dataset, task.act_dim, config)


def random_episodes(task: Task) -> Episodes:
    """Noise of a task's dimensions."""
    rng = np.random.default_rng(0)
    assert task.max_episode_steps is not None
    num = NUM_EPISODES * task.max_episode_steps
    return Episodes(
        observations=rng.normal(size=(num + NUM_EPISODES, task.obs_dim)).astype(np.float32),
        actions=rng.uniform(-1, 1, size=(num, task.act_dim)).astype(np.float32),
        rewards=rng.random(num),
        costs=rng.random(num),
        lengths=np.full(NUM_EPISODES, task.max_episode_steps),
        terminated=np.zeros(NUM_EPISODES, np.bool_),
        action_low=np.full(task.act_dim, -1, np.float32),
        action_high=np.full(task.act_dim, 1, np.float32),
        dataset_id=task.dataset_id,
        env_id=task.env_id,
        max_episode_steps=task.max_episode_steps,
        cost_discount=task.cost_discount,
        max_budget=task.max_budget,
        metadata={},
    )
