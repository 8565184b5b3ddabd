"""The table of tasks: one row says everything about a task, and is what registers it."""

import difflib
from dataclasses import dataclass

import gymnasium as gym


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task with a cost.

    Attributes:
        id: Gymnasium id.
        entry_point: `"module:factory"`, imported only when the task is made.
        max_episode_steps: Time limit of an episode, after which it is truncated.
        cost_discount: gamma_c of the budget recursion (Lin et al. 2023, App. D).
        max_budget: The largest budget of the paper's protocol, in cost units per episode (Table 2).
        cost: The cost of one step, in words.
        source: Where the task comes from.
    """

    id: str
    entry_point: str
    max_episode_steps: int
    cost_discount: float
    max_budget: float
    cost: str
    source: str


TASKS: dict[str, TaskSpec] = {
    spec.id: spec
    for spec in (
        TaskSpec(
            id="safe/Pendulum-v0",
            entry_point="safe_envs.pendulum:make_pendulum",
            max_episode_steps=200,
            cost_discount=1.0,
            max_budget=60.0,
            cost="1 - |angle - 25°| / 50°, between -25° and 75° from upright",
            source="Sauté RL (Sootla et al. 2022), mode 'test' as in TREBI's code",
        ),
    )
}


def register_tasks() -> None:
    """Registers every task with Gymnasium; safe to call again."""
    for spec in TASKS.values():
        if spec.id not in gym.registry:
            gym.register(
                spec.id, entry_point=spec.entry_point, max_episode_steps=spec.max_episode_steps
            )


def task_spec(env_id: str) -> TaskSpec:
    """Returns the row of a task, with or without the `safe_envs:` prefix.

    Raises:
        gymnasium.error.NameNotFound: No such task; the message names the nearest one.
    """
    name = env_id.removeprefix("safe_envs:")
    if name not in TASKS:
        nearest = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)
        raise gym.error.NameNotFound(
            f"There is no task {env_id!r} in safe_envs. Did you mean {nearest[0]!r}?"
        )
    return TASKS[name]
