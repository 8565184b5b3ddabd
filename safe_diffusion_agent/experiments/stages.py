"""The road from a task to an evaluated agent: `collect`, `train`, `evaluate`, and `run` for all.

Every stage is a function of its arguments and files: one that is done is not done again, one that
was interrupted continues.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.collection import CollectConfig, collect
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.writing import update_metadata
from safe_diffusion_agent.episodes import CostFunction, Task
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.evaluation.action_log import ActionLog
from safe_diffusion_agent.evaluation.figures import draw_evaluation, draw_losses
from safe_diffusion_agent.evaluation.optimum import best_returns
from safe_diffusion_agent.evaluation.protocol import (
    EvaluationConfig,
    evaluate_agent,
    summarize,
    to_csv,
)
from safe_diffusion_agent.methods.table import load_agent, method_of
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import FILE_NAME, provenance, write_text

Progress = Callable[..., None]
ProgressOf = Callable[[str], AbstractContextManager[Progress | None]]
PathLike = str | os.PathLike[str]


def _silent(_: str) -> AbstractContextManager[Progress | None]:
    return nullcontext(None)


def train(
    dataset_id: str,
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
    """Trains an agent on a Minari dataset and saves it into a folder.

    The folder gets `agent.safetensors`, `losses.csv`, `losses.png`, and, until the training is
    complete, `training*.safetensors` to continue from.

    Args:
        dataset_id: Minari id.
        out: The folder.
        method: One of `METHODS`.
        preset: One of its presets.
        seed: Fixes the training, on one machine.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        cost_key: See `load_episodes`.
        cost_fn: See `load_episodes`.
        settings: Settings that differ from the preset's.
        progress: See `optimize`.

    Raises:
        DatasetError: See `load_episodes`.
        UnknownNameError: There is no such method, preset or setting.
        CheckpointError: The folder holds another agent.
    """
    folder = Path(out)
    episodes = load_episodes(dataset_id, cost_key=cost_key, cost_fn=cost_fn)
    chosen = method_of(method)
    config = chosen.config(preset, episodes.env_id, **(settings or {}))
    if (folder / FILE_NAME).exists():
        agent = load_agent(folder, device=device)
        holds = _identity(agent.method, agent.config, agent.task, agent.about["seed"])
        wanted = _identity(method, config, Task.of(episodes), seed)
        if holds != wanted:
            raise CheckpointError(
                f"{folder} holds another agent ({difference(holds, wanted)}). Choose another "
                "folder, or delete it."
            )
    else:
        state_path = folder / "training.safetensors"
        agent, history = chosen.fit(
            episodes, config, seed=seed, device=device, state_path=state_path, progress=progress
        )
        _write_losses(history, folder)
        agent.save(folder)
    for file in folder.glob("training*.safetensors"):
        file.unlink()
    return agent


def _identity(method: str, config: Any, task: Task, seed: int) -> dict[str, Any]:
    return {"method": method, "config": asdict(config), "task": asdict(task), "seed": seed}


def _write_losses(history: list[dict[str, float]], folder: Path) -> None:
    table = io.StringIO()
    names = dict.fromkeys(name for row in history for name in row)
    writer = csv.DictWriter(table, list(names))
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / "losses.csv", table.getvalue())
    draw_losses(history, folder / "losses.png")


def evaluate(
    agent: Agent,
    out: PathLike,
    *,
    env_id: str | None = None,
    config: EvaluationConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluates an agent under several budgets and writes what came out.

    The folder gets `results.json`, `episodes.csv` and, for fixed ratios, `evaluation.png`. If it
    already has the results of the same agent and evaluation, they are returned. Until it is done it
    has `actions.safetensors`, to continue from.

    Args:
        agent: The agent. Its noise starts from the evaluation's seed. If it was trained for
            certain budgets only, every budget is met by the networks of the nearest one.
        out: The folder.
        env_id: Task to evaluate on. None takes the agent's.
        config: What to evaluate.
        progress: See `rollout`.

    Returns:
        What `results.json` holds: `"budgets"` (see `summarize`), the behavior policy, and what
        made them.

    Raises:
        ValueError: There is no task to evaluate on.
    """
    config = config or EvaluationConfig()
    if config.max_budget is None:
        config = replace(config, max_budget=agent.task.max_budget)
    env_id = env_id or agent.task.env_id
    if env_id is None:
        raise ValueError("The agent's dataset names no environment: give env_id.")
    folder = Path(out)
    inputs = _inputs(agent, env_id, config)
    if (folder / "results.json").exists():
        document: dict[str, Any] = json.loads((folder / "results.json").read_text())
        if {key: document.get(key) for key in inputs} == inputs:
            return document
    log = ActionLog(folder / "actions.safetensors", inputs)
    results = evaluate_agent(agent, env_id, config, progress=progress, log=log)
    behavior_policy = agent.about.get("behavior_policy")
    document = {
        "budgets": summarize(results),
        "behavior_policy": behavior_policy,
        **inputs,
        "provenance": provenance(),
    }
    write_text(folder / "episodes.csv", to_csv(results))
    if not config.random_ratios:
        draw_evaluation(
            results,
            folder / "evaluation.png",
            title=f"{env_id}, {agent.method}, preset {agent.config.preset}, "
            f"{config.num_episodes} episodes per budget",
            behavior_policy=behavior_policy,
            optimum=best_returns(env_id, [row["budget"] for row in document["budgets"]]),
        )
    write_text(folder / "results.json", json.dumps(document, indent=2) + "\n")
    log.remove()
    return document


def _inputs(agent: Agent, env_id: str, config: EvaluationConfig) -> dict[str, Any]:
    """What an evaluation depends on, as JSON values."""
    about = {
        "method": agent.method,
        "config": asdict(agent.config),
        "task": asdict(agent.task),
        **agent.about,
    }
    document = {"task": env_id, "evaluation": asdict(config), "agent": about}
    inputs: dict[str, Any] = json.loads(json.dumps(document))
    return inputs


def measure_max_budget(
    dataset_id: str,
    agent: Agent | None = None,
    *,
    num_episodes: int = 60,
    seed: int = 0,
    cost_key: str = "infos/cost",
    cost_fn: CostFunction | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Computes the maximum budget of a dataset by the paper's rules (App. D), and stores it.

    Args:
        dataset_id: Minari id.
        agent: None: the mean cost of the dataset's episodes, "the expected episodic cost of the
            unconstrained behavior policy". An agent: the mean cost of its unconstrained planning,
            the rule for MuJoCo tasks.
        num_episodes: Episodes of the agent.
        seed: Of the agent's episodes.
        cost_key: See `load_episodes`.
        cost_fn: See `load_episodes`.
        progress: See `rollout`.

    Returns:
        `"max_budget"` in cost units (discounted by the task's gamma_c), `"max_budget_source"` in
        words, and `"paper_max_budget"`, the paper's for its own data (Table 2), or None.

    Raises:
        ValueError: The dataset names no environment that the agent could plan in, or nothing costs.
    """
    episodes = load_episodes(dataset_id, cost_key=cost_key, cost_fn=cost_fn)
    if agent is None:
        max_budget, source = float(episodes.discounted_costs.mean()), "mean cost of its episodes"
    else:
        if episodes.env_id is None:
            raise ValueError(f"The dataset {dataset_id!r} names no environment to plan in.")
        config = EvaluationConfig(
            ratios=(math.inf,), num_episodes=num_episodes, seed=seed, max_budget=1.0
        )
        results = evaluate_agent(agent, episodes.env_id, config, progress=progress)
        max_budget = sum(result.cost for result in results) / len(results)
        source = f"unconstrained planning, preset {agent.config.preset}, {num_episodes} episodes"
    if max_budget <= 0.0:
        raise ValueError(
            f"The {source} of {dataset_id!r} is {max_budget:g}: a budget should be positive. Check "
            "the costs of the dataset."
        )
    changes = {"max_budget": max_budget, "max_budget_source": source}
    update_metadata(dataset_id, changes)
    return changes | {"paper_max_budget": episodes.metadata.get("paper_max_budget")}


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
        method: See `train`.
        preset: See `train`.
        seed: Fixes all three stages, on one machine.
        num_steps: Environment steps to collect.
        dataset_id: See `collect`.
        device: See `train`.
        settings: See `train`.
        evaluation: What to evaluate. None takes the defaults, with `seed`.
        progress_of: Called with the name of a stage; gives a context manager of its progress.

    Returns:
        See `evaluate`.
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
