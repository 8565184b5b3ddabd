"""Trains a TREBI agent: the denoiser with its values, or with what the frontier takes."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.compute import check_execution, record_cuda_graph, resolve_device
from safe_diffusion_agent.episodes import Episodes, Task, is_held_out, select_episodes
from safe_diffusion_agent.learning.networks import new_networks
from safe_diffusion_agent.learning.training import (
    History,
    OptimizationConfig,
    Progress,
    Stages,
    optimize,
)
from safe_diffusion_agent.methods.trebi.agent import TrebiAgent, judge_of, planner_of
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.frontier import fit as frontier
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.planner import Planner, Sampler, ValueJudge
from safe_diffusion_agent.methods.trebi.training import (
    DenoiserTraining,
    ValueTraining,
    windows_of,
)
from safe_diffusion_agent.storage import origin

AgentType = TypeVar("AgentType", bound=TrebiAgent)

MAX_SCORES = 10_000  # windows that the cost value is asked about


# What the margin is taken from, or None; JSON values to keep with the agent; logged losses.
Fitted = tuple[Calibration | None, dict[str, Any], History]


@dataclass(frozen=True)
class JudgeFit:
    """How what a judge rates plans by is fitted.

    Attributes:
        check: Finds out before the training whether its calibration will have enough scores.
        training: The first stage.
        num_steps: Optimizer steps, and those of imagined episodes, of the stages after it.
        finish: Called with the planner, the first training, the episodes and the stages.
    """

    check: Callable[[TrebiConfig, Episodes], None]
    training: Callable[..., DenoiserTraining]
    num_steps: Callable[[TrebiConfig, Task], int]
    finish: Callable[[Planner, Any, Episodes, Stages], Fitted]


def fit(
    episodes: Episodes,
    config: TrebiConfig,
    *,
    agent_class: type[AgentType] = TrebiAgent,  # type: ignore[assignment]
    seed: int = 0,
    device: str = "auto",
    state_path: Path | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[AgentType, History]:
    """Trains a TREBI agent on a dataset.

    Args:
        episodes: The dataset.
        config: Settings, such as `METHODS["trebi"].config("quick", episodes.env_id)`.
        agent_class: Class of the agent.
        seed: Fixes initial weights, batches and noise.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        state_path: File to continue from and to save to. None neither saves nor continues.
        save_interval: Optimizer steps between saves.
        progress: Called after every step as `progress(done, total, <losses>)`.

    Returns:
        The agent, and the logged losses.

    Raises:
        ValueError: The settings do not fit the dataset.
        CheckpointError: `state_path` belongs to another training.
    """
    torch_device, task, judge = resolve_device(device), Task.of(episodes), judge_of(config)
    judge_fit = JUDGE_FITS[judge]
    _check(config, episodes, torch_device)
    judge_fit.check(config, episodes)
    seen = select_episodes(episodes, ~_held_out(config, episodes))
    normalizer = Normalizer.fit(seen)
    networks = new_networks(lambda: judge.networks_class(config.model, task), seed).to(torch_device)
    schedule = NoiseSchedule.cosine(config.model.diffusion_steps, torch_device)
    of_device = normalizer.to(torch_device)
    judge(Sampler(networks, schedule, of_device, config, task))  # refuses what it cannot plan with
    windows = windows_of(seen, of_device, config, task, torch_device)
    training = judge_fit.training(networks, windows, schedule, config, task)
    stages = Stages(
        seed=seed,
        identity={"config": asdict(config), "task": asdict(task), "seed": seed},
        state_path=state_path,
        progress=progress,
        total=config.training.num_steps + judge_fit.num_steps(config, task),
    )
    trained, history = optimize(
        training,
        OptimizationConfig.of(config.training),
        generator=torch.Generator(torch_device).manual_seed(seed),
        record=record_cuda_graph if config.training.recorded_training else None,
        state_path=state_path,
        identity=stages.identity,
        save_interval=save_interval,
        progress=stages.progress_after(0),
    )
    networks.load_state_dict(trained.state_dict())
    planner = planner_of(networks, schedule, of_device, config, task)
    calibration, about, later_history = judge_fit.finish(planner, training, episodes, stages)
    history = [*history, *later_history]
    about = origin(seed, history[-1], episodes.metadata.get("behavior_policy")) | about
    parts = (networks, normalizer, config, task, calibration)
    return agent_class(*parts, about=about, device=torch_device), history


def _check(config: TrebiConfig, episodes: Episodes, device: torch.device) -> None:
    if config.training.recorded_training:
        if config.training.value_steps is not None:
            raise ValueError(
                "A recorded training does the same in every step: value_steps should be None, or "
                "recorded_training=false."
            )
        if device.type != "cuda":
            raise ValueError("recorded_training needs a CUDA device. Use recorded_training=false.")
    check_execution(config.planner.execution, device, large=config.model.network == "unet")
    if config.model.time_to_go and episodes.max_episode_steps is None:
        raise ValueError("time_to_go needs a dataset whose episodes have a time limit.")


def _held_out(config: TrebiConfig, episodes: Episodes) -> npt.NDArray[np.bool_]:
    """Returns which episodes the networks do not see, `(E,)`."""
    return is_held_out(len(episodes.lengths), config.training.calibration_share)


def _check_held_out(config: TrebiConfig, episodes: Episodes) -> None:
    risk = config.planner.risk
    if risk is None:
        return
    held_out = _held_out(config, episodes)
    num_windows, needed = int(episodes.lengths[held_out].sum()), math.ceil(1.0 / risk) - 1
    if num_windows < needed:
        raise ValueError(
            f"A risk of {risk:g} needs {needed} steps of held-out data; there are {num_windows}. "
            "Set calibration_share=0.1 or more, use more data, or risk=None."
        )


def _finish_values(
    planner: Planner, training: ValueTraining, episodes: Episodes, stages: Stages
) -> Fitted:
    """Gives the values their units, and asks them about episodes that they have not seen."""
    del stages
    judge, config = planner.judge, planner.config
    assert isinstance(judge, ValueJudge)
    judge.sampler.networks.rescale(training.return_scale, training.cost_scale)
    held_out = _held_out(config, episodes)
    if not held_out.any():
        return None, {}, []
    unseen, sampler = select_episodes(episodes, held_out), judge.sampler
    device = sampler.schedule.alpha_bar.device
    windows = windows_of(unseen, sampler.normalizer, config, sampler.task, device, 0.0)
    return Calibration(underestimated_values(judge, windows)), {}, []


@torch.no_grad()
def underestimated_values(judge: ValueJudge, windows: Any) -> Tensor:
    """Returns the cost-to-go of windows less what the judge would expect, `(m,)`.

    Args:
        judge: Its networks are trained.
        windows: `Windows` of episodes that they were not trained on.
    """
    rows = torch.arange(0, len(windows), max(1, len(windows) // MAX_SCORES))
    scores = []
    for chosen in rows.split(1_000):
        batch = windows.get(chosen)
        _, predicted = judge.rate(batch.trajectories, batch.remaining_steps.to(torch.float32))
        scores.append(batch.costs - predicted)
    return torch.cat(scores).cpu()


def _finish_frontier(
    planner: Planner, training: DenoiserTraining, episodes: Episodes, stages: Stages
) -> Fitted:
    del training
    return frontier.fit_frontier(planner, episodes, stages)


JUDGE_FITS: dict[Any, JudgeFit] = {
    ValueJudge: JudgeFit(_check_held_out, ValueTraining, lambda *_: 0, _finish_values),
    FrontierJudge: JudgeFit(
        frontier.check_risk, DenoiserTraining, frontier.num_stage_steps, _finish_frontier
    ),
}
