"""Collects offline data with SAC, as a Minari dataset with costs.

The qualities are those of the paper's data sets (Lin et al. 2023, Sec. 5.1 and App. B; those of
D4RL, Fu et al. 2020, for MuJoCo):

    replay         all that an unconstrained SAC saw in its training
    medium         episodes of the policy of that training that first reached a third of what its
                   final policy returns, counted from what random actions or none return
    medium-replay  all that SAC saw up to that policy
    expert         episodes of the final policy
    medium-expert  half medium, half expert

Another policy may take the place of the final one: a zip of Stable-Baselines3. The training then
ends as soon as it is medium.

The reference code stores Stable-Baselines3's rescaled actions; here they are in environment units,
so that they can be replayed.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.data.facts import facts_of
from safe_diffusion_agent.data.levels import (
    Expert,
    expert_id,
    load_expert,
    medium_return,
    medium_snapshot,
)
from safe_diffusion_agent.data.recording import Episode, Policy, Progress, record_episodes
from safe_diffusion_agent.data.writing import check_id, is_made, write_dataset
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.storage import provenance
from safe_envs import task_spec

if TYPE_CHECKING:  # Stable-Baselines3 is loaded where SAC is trained
    from safe_diffusion_agent.data.sac import SacTraining, Snapshot

ALGORITHMS = {
    "replay": "SAC (Stable-Baselines3), unconstrained: its whole replay buffer",
    "medium": "SAC (Stable-Baselines3), unconstrained, stopped at a third of its performance",
    "medium-replay": "SAC (Stable-Baselines3), unconstrained: its replay buffer up to medium",
    "expert": "SAC (Stable-Baselines3), unconstrained, fully trained",
    "medium-expert": "SAC (Stable-Baselines3), unconstrained: half medium, half expert",
}
QUALITIES = tuple(ALGORITHMS)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    Attributes:
        env_id: A task of `safe_envs`.
        quality: One of `QUALITIES`.
        num_steps: Steps of the dataset (the paper: 2e4 for replay on Pendulum and Reacher, 1e6 on
            Bullet tasks); for replay and medium-replay, steps of SAC. Episodes are stored whole: a
            last one that SAC did not finish is left out, one that is rolled out is finished.
        train_steps: Steps of SAC, with one gradient step each, for the qualities that are rolled
            out. None: as `num_steps`. With an expert, at most so many.
        expert: Path of a zip of Stable-Baselines3 whose policy is the expert. None: the last policy
            of our own training.
        seed: Fixes the whole collection, on one machine.
    """

    env_id: str
    quality: str = "replay"
    num_steps: int = 20_000
    train_steps: int | None = None
    expert: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise UnknownNameError("quality", self.quality, QUALITIES)
        if self.quality.endswith("replay") and self.train_steps not in (None, self.num_steps):
            raise ValueError(f"{self.quality} is what SAC saw: leave out train_steps.")
        if self.expert is not None and self.quality == "replay":
            raise ValueError("replay is all that SAC saw: leave out expert.")
        if self.quality.endswith("replay") and self.trained_in != task_spec(self.env_id).id:
            raise ValueError(
                f"{self.env_id} differs from {self.trained_in} in its costs alone, so that SAC is "
                f"trained there: collect {self.quality} of that task."
            )
        longest = task_spec(self.env_id).max_episode_steps
        for name in ("num_steps", "sac_steps"):
            if getattr(self, name) < longest:
                raise ValueError(
                    f"{name} should be at least one episode of {self.env_id} ({longest} steps). "
                    f"Received {getattr(self, name)}."
                )

    @property
    def sac_steps(self) -> int:
        """Steps of SAC."""
        return self.num_steps if self.train_steps is None else self.train_steps

    @property
    def trained_in(self) -> str:
        """Id of the task that SAC is trained in; those that differ in costs alone share one."""
        spec = task_spec(self.env_id)
        return spec.same_but_costs or spec.id

    def identity(self) -> dict[str, Any]:
        """Returns JSON values of all that the dataset depends on.

        Raises:
            DatasetError: There is no file of the expert.
        """
        values = asdict(self)
        expert = values.pop("expert")
        return values if expert is None else values | {"expert": expert_id(expert)}


def default_dataset_id(env_id: str, quality: str = "replay", expert: str | None = None) -> str:
    """Returns a Minari id: `safe-envs/pendulum/sac-replay-v0`, `safe-envs/hopper/medium-v0`.

    With an expert: `safe-envs/walker2d/medium-by-walker2d_v3-v0`.
    """
    task = task_spec(env_id).id.removeprefix("safe/").rpartition("-")[0]
    name = "sac-replay" if quality == "replay" else quality
    if expert is not None:
        name += "-by-" + re.sub(r"\W+", "_", Path(expert).stem)
    return f"safe-envs/{task}/{name}-v0".lower()


def paper_max_budget(env_id: str, quality: str) -> float | None:
    """Returns the maximum budget of the paper's dataset (Table 2), or None if it has none."""
    spec = task_spec(env_id)
    if not spec.of_paper:
        return None
    main_quality = "medium-replay" if spec.other_max_budgets else "replay"
    return ({main_quality: spec.max_budget} | dict(spec.other_max_budgets)).get(quality)


def default_state_dir(config: CollectConfig) -> Path:
    """Returns the folder of a collection; qualities of one training share it."""
    name = default_dataset_id(config.trained_in).split("/")[1]
    until = "" if config.expert is None else f"-until-a-third-of-{Path(config.expert).stem}"
    name = f"{name}-{config.sac_steps}{until}-seed{config.seed}"
    return Path("runs") / "collections" / name


def collect(
    config: CollectConfig,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Trains SAC without a constraint and stores what the quality asks for as a Minari dataset.

    A dataset that the same config already made is kept, and an interrupted collection continues
    from its last checkpoint to the same dataset.

    Args:
        config: What to collect.
        state_dir: Folder for what is needed to continue after an interruption: the training (its
            episodes and snapshots of its policy) and the rolled out episodes. None takes
            `default_state_dir`. Its files are for this machine only.
        dataset_id: Minari id. None takes `default_dataset_id`.
        overwrite: Replaces a dataset of that id that something else made.
        progress: Called as `progress(done, total, **values)`, in steps.

    Returns:
        The id of the dataset.

    Raises:
        DatasetError: The id is taken by a dataset that something else made, there is no file of
            the expert, or SAC did not become medium.
        CheckpointError: `state_dir` belongs to another collection, or the expert's file holds no
            policy for the task.
    """
    from safe_diffusion_agent.data.sac import SacTraining

    spec = task_spec(config.env_id)
    dataset_id = dataset_id or default_dataset_id(config.env_id, config.quality, config.expert)
    folder = default_state_dir(config) if state_dir is None else Path(state_dir)
    check_id(dataset_id)
    if is_collected(dataset_id, config, overwrite=overwrite):
        return dataset_id
    with one_thread():
        expert, target = None, None
        if config.expert is not None:
            expert = load_expert(config.expert, spec.id, config.seed)
            target = medium_return(spec.id, config.seed, expert.mean_return)
        training = SacTraining(config.trained_in, config.sac_steps, config.seed, folder, target)
        training.run(progress)
        halves = _halves(config.quality, training, expert)
        episodes = _episodes(config, training, halves, folder, progress)
        metadata = {
            "algorithm": ALGORITHMS[config.quality],
            "collect_config": config.identity(),
            **facts_of(gym.make(spec.id)),
            "behavior_policy": _described(halves[-1]),
            "snapshots": [asdict(snapshot) for snapshot in training.snapshots],
            "provenance": provenance(),
        } | _budgets(config, expert)
        if expert is not None:
            metadata["expert"] = expert.values()
            metadata["algorithm"] += f"; the expert is {expert.name}"
        write_dataset(dataset_id, spec.id, episodes, metadata)
    return dataset_id


def _halves(
    quality: str, training: "SacTraining", expert: Expert | None
) -> list["Snapshot | Expert"]:
    """Returns the policies that a quality is made of, in their order, or ends at."""
    best = expert or training.snapshots[-1]
    if quality in ("replay", "expert"):
        return [best]
    medium = medium_snapshot(training)
    return [medium, best] if quality == "medium-expert" else [medium]


def _described(policy: "Snapshot | Expert") -> dict[str, Any]:
    if isinstance(policy, Expert):
        return policy.values() | {"name": f"{policy.name}, deterministic"}
    return asdict(policy) | {"name": f"SAC after {policy.step} steps, deterministic"}


def _episodes(
    config: CollectConfig,
    training: "SacTraining",
    halves: "list[Snapshot | Expert]",
    folder: Path,
    progress: Progress | None,
) -> Iterator[Episode]:
    if config.quality == "replay":
        return training.episodes()
    if config.quality == "medium-replay":
        return _until(training.episodes(), medium_snapshot(training).step)

    def rolled_out(one: "Snapshot | Expert") -> Iterator[Episode]:
        policy: Policy
        if isinstance(one, Expert):
            policy, name = one.act, one.name.replace(" ", "-")
        else:
            policy, name = training.load_policy(one), f"{one.step:08d}"
        if training.env_id != config.env_id:
            name = f"{config.env_id.rpartition('/')[2]}-{name}"  # the costs are others
        steps, rounds = config.num_steps // len(halves), folder / f"rollouts-{name}"
        return record_episodes(policy, config.env_id, steps, config.seed, rounds, progress)

    return chain.from_iterable(map(rolled_out, halves))


def _until(episodes: Iterator[Episode], num_steps: int) -> Iterator[Episode]:
    done = 0
    for episode in episodes:
        done += len(episode["rewards"])
        if done > num_steps:
            return
        yield episode


def _budgets(config: CollectConfig, expert: Expert | None) -> dict[str, Any]:
    budget = paper_max_budget(config.env_id, config.quality)
    if budget is not None:
        source = "the paper's, for its own data (Table 2)"
        return {"max_budget": budget, "max_budget_source": source, "paper_max_budget": budget}
    if expert is not None:
        source = f"what {expert.name} costs, deterministic"
        return {"max_budget": expert.mean_cost, "max_budget_source": source}
    if not task_spec(config.env_id).of_paper:
        own = task_spec(config.env_id).max_budget
        return {"max_budget": own, "max_budget_source": "the task's own"}
    return {}


def is_collected(dataset_id: str, config: CollectConfig, *, overwrite: bool = False) -> bool:
    """Returns whether the config already made the dataset.

    Args:
        dataset_id: Minari id.
        config: What is to be collected.
        overwrite: A dataset that something else made may be replaced.

    Raises:
        DatasetError: The id is taken by a dataset that something else made.
    """
    return is_made(dataset_id, config.identity(), overwrite=overwrite)
