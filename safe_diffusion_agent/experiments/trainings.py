"""What a training is asked for, and whether a folder holds the agent of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.episodes import CostFunction, Episodes, Task
from safe_diffusion_agent.methods.table import Method, method_of
from safe_diffusion_agent.settings import from_json
from safe_diffusion_agent.storage import FILE_NAME, checkpoint_kind, load_checkpoint
from safe_envs import TASKS


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, before it is begun.

    Attributes:
        method: Its method.
        data: What it learns from: a dataset, or the id of an environment.
        task: What it learns.
        config: All settings.
        seed: Of the training.
    """

    method: Method
    data: Episodes | str
    task: Task
    config: Any
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its agent from others."""
        return _identity(self.method.agent_class.method, self.config, self.task, self.seed)


def training_of(
    source: str,
    *,
    method: str,
    preset: str,
    seed: int,
    cost_key: str = "infos/cost",
    cost_fn: CostFunction | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Training:
    """Returns a training, whose arguments are those of `stages.train`.

    Raises:
        DatasetError: There is no such dataset, or it is broken, or has no costs.
        UnknownNameError: There is no such method, preset or setting.
        ValueError: The method does not learn from such a source, or budgets would be shares of
            nothing.
    """
    chosen, online = method_of(method), _is_environment(source)
    chosen.check_source(online=online)
    if online:
        data: Episodes | str = source
        task = _task_of(source)
    else:
        data = load_episodes(source, cost_key=cost_key, cost_fn=cost_fn)
        task = Task.of(data)
    if chosen.constrained and task.max_budget <= 0.0:
        raise ValueError(
            f"The maximum budget of {source} should be positive, as budgets are shares of it. It "
            f"is {task.max_budget:g}: check the costs (`trebi describe {source}`), and measure it "
            f"again (`trebi max-budget {source}`)."
        )
    config = chosen.config(preset, task.env_id, **(settings or {}))
    return Training(method=chosen, data=data, task=task, config=config, seed=seed)


def identity_in(folder: Path) -> dict[str, Any] | None:
    """Returns the identity of the training whose agent a folder holds; None if it holds none.

    Raises:
        CheckpointError: The file is damaged or foreign.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    kind = checkpoint_kind(path)
    _, document = load_checkpoint(path, kind)
    config = from_json(method_of(kind).agent_class.config_class, document["config"])
    return _identity(kind, config, Task.from_json(document["task"]), document["about"]["seed"])


def is_trained(source: str, folder: Path, **options: Any) -> bool:
    """Returns whether a folder holds the agent of a training; options are as of `training_of`."""
    held = identity_in(folder)
    if held is None or held["task"]["dataset_id"] not in (None, source):
        return False
    return held == training_of(source, **options).identity


def _identity(method: str, config: Any, task: Task, seed: int) -> dict[str, Any]:
    return {"method": method, "config": asdict(config), "task": asdict(task), "seed": seed}


def _is_environment(source: str) -> bool:
    return ":" in source or source in gym.registry  # "module:id" is imported when it is made


def _task_of(env_id: str) -> Task:
    """Returns the task of an environment; what `safe_envs` says of it, its spaces do not."""
    env = gym.make(env_id)
    spec = TASKS.get("" if env.spec is None else env.spec.id)
    names = ("cost_discount", "max_budget", "costs_may_be_negative")
    task = Task.of_env(env, **({} if spec is None else {n: getattr(spec, n) for n in names}))
    env.close()
    return task
