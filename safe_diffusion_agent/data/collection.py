"""Collects offline data with SAC, as a Minari dataset with costs.

The reference code stores Stable-Baselines3's rescaled actions; here they are in environment units,
so that they can be replayed.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.data.facts import facts_of
from safe_diffusion_agent.data.levels import (
    MEASURED_EPISODES,
    MEASURED_SEED_OFFSET,
    Expert,
    load_expert,
    measure,
    medium_return,
    medium_snapshot,
)
from safe_diffusion_agent.data.qualities import (
    ALGORITHMS,
    CollectConfig,
    default_state_dir,
    paper_max_budget,
)
from safe_diffusion_agent.data.recording import Episode, Policy, Progress, record_episodes
from safe_diffusion_agent.data.writing import check_id, is_made, stored_metadata, write_dataset
from safe_diffusion_agent.storage import provenance
from safe_envs import task_spec

if TYPE_CHECKING:  # Stable-Baselines3 is loaded where SAC is trained
    from safe_diffusion_agent.data.sac import SacTraining, Snapshot


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
    dataset_id = dataset_id or config.dataset_id
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
        if not (config.quality == "expert" and expert is not None):
            training.run(progress)
        halves = _halves(config.quality, training, expert)
        episodes = _episodes(config, training, halves, folder, progress)
        metadata = {
            "algorithm": ALGORITHMS[config.quality],
            "collect_config": config.identity(),
            **facts_of(gym.make(spec.id)),
            "behavior_policy": _described(halves[-1], training, spec.id),
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


def _described(policy: "Snapshot | Expert", training: "SacTraining", env_id: str) -> dict[str, Any]:
    if isinstance(policy, Expert):
        return policy.values() | {"name": f"{policy.name}, deterministic"}
    values = asdict(policy) | {"name": f"SAC after {policy.step} steps, deterministic"}
    if training.env_id == env_id:
        return values
    act, seed = training.load_policy(policy, deterministic=True), training.seed
    return values | measure(act, env_id, seed + MEASURED_SEED_OFFSET, MEASURED_EPISODES)


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
        (medium,) = halves
        assert not isinstance(medium, Expert)
        return _until(training.episodes(), medium.step)

    def rolled_out(one: "Snapshot | Expert") -> Iterator[Episode]:
        policy: Policy
        if isinstance(one, Expert):
            policy, name = one.act, one.name.replace(" ", "-")
        else:
            policy, name = training.load_policy(one), f"{one.step:08d}"
        if config.trained_in != task_spec(config.env_id).id:
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
    made_with = stored_metadata(dataset_id).get("collect_config") or {}
    identity = config.identity(str(made_with.get("expert", "")))
    return is_made(dataset_id, identity, overwrite=overwrite)
