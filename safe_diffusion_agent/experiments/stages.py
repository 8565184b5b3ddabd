"""The road from a task to an evaluated agent: `collect`, `train`, `evaluate`, and `run` for all.

Every stage is a function of its arguments and files: one that is done is not done again, one that
was interrupted continues.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.collection import collect
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.episodes import CostFunction
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.evaluation.action_log import ActionLog
from safe_diffusion_agent.evaluation.optimum import best_by_ratio
from safe_diffusion_agent.evaluation.protocol import (
    EpisodeResult,
    EvaluationConfig,
    evaluate_agent,
    summarize,
)
from safe_diffusion_agent.experiments.trainings import identity_in, training_of
from safe_diffusion_agent.methods.table import load_agent
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import csv_of, new_folder, provenance, read_json, write_text

Progress = Callable[..., None]
ProgressOf = Callable[[str], AbstractContextManager[Progress | None]]
PathLike = str | os.PathLike[str]


def _silent(_: str) -> AbstractContextManager[Progress | None]:
    return nullcontext(None)


def train(
    source: str,
    out: PathLike,
    *,
    method: str = "trebi",
    preset: str = "quick",
    seed: int = 0,
    device: str = "auto",
    cost_key: str = "infos/cost",
    cost_fn: CostFunction | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Agent:
    """Trains an agent on a dataset, or in an environment, and saves it into a folder.

    The folder gets `agent.safetensors`, `losses.csv`, `losses.png`, and, until the training is
    complete, `training*.safetensors` to continue from.

    Args:
        source: Minari id of a dataset; or, for a method that learns online, the id of a task.
        out: The folder.
        method: One of `METHODS`.
        preset: One of its presets.
        seed: Fixes the training, on one machine.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        cost_key: Where the dataset has its costs, `"infos/<name>"`.
        cost_fn: Computes the costs of a whole episode instead.
        settings: Settings that differ from the preset's.
        progress: Called as `progress(done, total, **losses)`, in optimizer steps.

    Raises:
        DatasetError: There is no such dataset, or it is broken, or has no costs.
        UnknownNameError: There is no such method, preset or setting.
        ValueError: The method does not learn from such a source, or the maximum budget is zero.
        CheckpointError: The folder holds another agent.
    """
    folder = Path(out)
    asked = training_of(
        source,
        method=method,
        preset=preset,
        seed=seed,
        cost_key=cost_key,
        cost_fn=cost_fn,
        settings=settings,
    )
    held = identity_in(folder)
    if held is not None:
        if held != asked.identity:
            raise CheckpointError(
                f"{folder} holds another agent ({difference(held, asked.identity)}). Choose "
                "another folder, or delete it."
            )
        agent = load_agent(folder, device=device)
    else:
        state_path = new_folder(folder) / "training.safetensors"
        agent, history = asked.method.fit(
            asked.data,
            asked.config,
            seed=seed,
            device=device,
            state_path=state_path,
            progress=progress,
        )
        _write_losses(history, folder)
        agent.save(folder)
    for file in folder.glob("training*.safetensors"):
        file.unlink()
    return agent


def _write_losses(history: list[dict[str, float]], folder: Path) -> None:
    from safe_diffusion_agent.evaluation.figures import draw_losses

    write_text(folder / "losses.csv", csv_of(history))
    draw_losses(history, folder / "losses.png")


def evaluate(
    agent: Agent,
    out: PathLike,
    *,
    env_id: str | None = None,
    config: EvaluationConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluates an agent under several budgets, and writes the results into a folder.

    The folder gets `results.json`, `episodes.csv` and, for fixed ratios, `evaluation.png`. If it
    already has the results of the same agent and evaluation, they are returned. Until it is done it
    has `actions.safetensors`, to continue from.

    Args:
        agent: The agent. Its noise starts from the evaluation's seed. If it was trained for
            certain budgets only, every budget is met by the networks of the nearest one.
        out: The folder.
        env_id: Task to evaluate on. None takes the agent's.
        config: What to evaluate.
        progress: Called as `progress(done, total)`, in steps of the environments.

    Returns:
        The content of `results.json`: `"budgets"` (one summary per budget), the behavior policy,
        and what made them.

    Raises:
        ValueError: There is no task to evaluate on.
    """
    config, folder = config or EvaluationConfig(), Path(out)
    stored = stored_results(agent, folder, env_id=env_id, config=config)
    if stored is not None:
        return stored
    inputs = _inputs(agent, env_id, config)
    log = ActionLog(new_folder(folder) / "actions.safetensors", inputs)
    config = replace(config, max_budget=inputs["evaluation"]["max_budget"])
    results = evaluate_agent(agent, inputs["task"], config, progress=progress, log=log)
    document = {
        "budgets": summarize(results),
        "behavior_policy": agent.about.get("behavior_policy"),
        **inputs,
        "provenance": provenance(),
    }
    write_text(folder / "episodes.csv", csv_of([asdict(result) for result in results]))
    if not config.random_ratios:
        _draw(results, document, folder / "evaluation.png")
    write_text(folder / "results.json", json.dumps(document, indent=2) + "\n")
    log.remove()
    return document


def stored_results(
    agent: Agent, out: PathLike, *, env_id: str | None = None, config: EvaluationConfig
) -> dict[str, Any] | None:
    """Returns the content of `results.json`, if the same agent and evaluation made it; else None.

    Args:
        agent: The agent.
        out: Folder of the results.
        env_id: Task to evaluate on. None takes the agent's.
        config: What to evaluate.
    """
    path, inputs = Path(out) / "results.json", _inputs(agent, env_id, config)
    document: dict[str, Any] = read_json(path) if path.exists() else {}
    return document if {key: document.get(key) for key in inputs} == inputs else None


def _draw(results: list[EpisodeResult], document: dict[str, Any], path: Path) -> None:
    from safe_diffusion_agent.evaluation.figures import ComparisonPanel, draw_comparison

    env_id, agent, behavior = (document[key] for key in ("task", "agent", "behavior_policy"))
    ratios, budgets = zip(*((row["ratio"], row["budget"]) for row in document["budgets"]))
    panel = ComparisonPanel(
        name=f"{env_id}, {document['evaluation']['num_episodes']} episodes per budget",
        episodes={f"{agent['method']}, preset {agent['config']['preset']}": results},
        lines={behavior["name"]: behavior["mean_return"]} if behavior else {},
        optimum=best_by_ratio(env_id, ratios, budgets),
    )
    draw_comparison([panel], path)


def _inputs(agent: Agent, env_id: str | None, config: EvaluationConfig) -> dict[str, Any]:
    """Returns all that an evaluation depends on, as JSON values."""
    env_id = env_id or agent.task.env_id
    if env_id is None:
        raise ValueError("The agent's dataset names no environment: give env_id.")
    if config.max_budget is None:
        config = replace(config, max_budget=agent.task.max_budget)
    about = {
        "method": agent.method,
        "config": asdict(agent.config),
        "task": asdict(agent.task),
        **agent.about,
    }
    document = {"task": env_id, "evaluation": asdict(config), "agent": about}
    inputs: dict[str, Any] = json.loads(json.dumps(document))
    return inputs


def run(
    env_id: str,
    out: PathLike,
    *,
    method: str = "trebi",
    preset: str = "quick",
    seed: int = 0,
    num_steps: int = 20_000,
    dataset_id: str | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    evaluation: EvaluationConfig | None = None,
    progress_of: ProgressOf = _silent,
) -> dict[str, Any]:
    """Collects, trains and evaluates.

    Args:
        env_id: A task of `safe_envs`.
        out: Folder of the run; the agent can be loaded from it.
        method: One of `METHODS`.
        preset: One of its presets.
        seed: Fixes all three stages, on one machine.
        num_steps: Environment steps to collect.
        dataset_id: Minari id to collect into. None takes the task's own.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        settings: Settings that differ from the preset's.
        evaluation: What to evaluate. None takes the defaults, with `seed`.
        progress_of: Called with the name of a stage; gives a context manager of its progress.

    Returns:
        The content of the evaluation's `results.json`.
    """
    folder = Path(out)
    with progress_of("collect") as progress:
        dataset_id = collect(
            CollectConfig(env_id=env_id, num_steps=num_steps, seed=seed),
            state_dir=folder / "collection",
            dataset_id=dataset_id,
            progress=progress,
        )
    with progress_of("train") as progress:
        agent = train(
            dataset_id,
            folder,
            method=method,
            preset=preset,
            seed=seed,
            device=device,
            settings=settings,
            progress=progress,
        )
    with progress_of("evaluate") as progress:
        return evaluate(
            agent,
            folder / "evaluation",
            env_id=env_id,
            config=evaluation or EvaluationConfig(seed=seed),
            progress=progress,
        )
