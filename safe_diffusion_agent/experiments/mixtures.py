"""Datasets of studies that policies from elsewhere make: the user puts their files in place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.data.writing import is_made
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.experiments.collecting import collect_with, plan_collection
from safe_diffusion_agent.experiments.jobs import Job
from safe_diffusion_agent.experiments.policies import Behavior

Progress = Callable[..., None]
STANDARD_STEPS = 120_000


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Episodes of a policy of rl-baselines3-zoo: half as it acts, half with noise on its actions.

    Attributes:
        env_id: Task, with the robot that the policy is of.
        policy: Path of its zip, from where the study runs.
        noise: Standard deviation of the noise, as a share of half the range of actions.
        num_steps: At least so many; episodes are whole.
        seed: Fixes the collection, on one machine.
    """

    env_id: str
    policy: str
    noise: float = 0.6
    num_steps: int = STANDARD_STEPS
    seed: int = 0

    @property
    def quality(self) -> str:
        """What the dataset is called."""
        return "half noisy"

    @property
    def dataset_id(self) -> str:
        """Minari id; datasets of another size or seed than the standard have their own."""
        robot = self.env_id.removeprefix("safe/").rpartition("-")[0].lower()
        size = "" if self.num_steps == STANDARD_STEPS else f"-{self.num_steps}"
        seed = f"-seed{self.seed}" if self.seed else ""
        return f"zoo/{robot}/half-noisy{size}{seed}-v0"


def mix_job(config: MixConfig) -> Job:
    """Returns the job that collects a mixture."""
    return Job(
        name=config.dataset_id,
        group=config.dataset_id,
        is_done=partial(_is_mixed, config),
        run=partial(_mix, config),
    )


def _is_mixed(config: MixConfig) -> bool:
    if not Path(config.policy).exists():
        raise DatasetError(
            f"{config.dataset_id} is made by a policy of rl-baselines3-zoo, which should be in "
            f"{config.policy}. docs/own_data.md says where to get it."
        )
    collection = plan_collection(**_arguments(config))
    return is_made(collection.dataset_id, collection.config)


def _mix(config: MixConfig, progress: Progress | None = None) -> None:
    collect_with(**_arguments(config), progress=progress)


def _arguments(config: MixConfig) -> dict[str, Any]:
    noises = (0.0, config.noise)
    return {
        "policies": [Behavior(policy=config.policy, noise=noise) for noise in noises],
        "env": config.env_id,
        "num_steps": config.num_steps,
        "seed": config.seed,
        "dataset_id": config.dataset_id,
    }
