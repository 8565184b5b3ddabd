"""The table of tasks: one row says everything about a task, and is what registers it."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task with a cost.

    Attributes:
        id: Gymnasium id.
        entry_point: `"module:factory"`, imported only when the task is made.
        max_episode_steps: Time limit of an episode, after which it is truncated.
        cost_discount: gamma_c of the budget recursion (Lin et al. 2023, App. D).
        max_budget: The largest budget of the protocol, in cost units per episode (for the paper's
            tasks, its Table 2).
        cost: The cost of one step, in words.
        source: Where the task comes from.
        other_max_budgets: Largest budgets for the other data sets of the paper, by their name.
        costs_may_be_negative: Whether a step may cost less than nothing; budgets may be negative
            then, too.
        of_paper: Whether it is one of the paper's tasks.
        same_but_costs: Id of the task that this one differs from in its costs alone: a policy that
            looks at no costs learns the same in both.
        variant_steps: Time limits of those values of `gym.make(id, variant=...)` that have one of
            their own.
    """

    id: str
    entry_point: str
    max_episode_steps: int
    cost_discount: float
    max_budget: float
    cost: str
    source: str
    other_max_budgets: Mapping[str, float] = field(default_factory=dict)
    costs_may_be_negative: bool = False
    of_paper: bool = True
    same_but_costs: str | None = None
    variant_steps: Mapping[str, int] = field(default_factory=dict)


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
        TaskSpec(
            id="safe/Reacher-v0",
            entry_point="safe_envs.reacher:make_reacher",
            max_episode_steps=50,
            cost_discount=1.0,
            max_budget=14.0,
            cost="100 - 200 d, within d < 0.5 m of the unsafe point",
            source="Sauté RL (Sootla et al. 2022); geometry='reachable' is ours",
        ),
        TaskSpec(
            id="safe/ReacherReachable-v0",
            entry_point="safe_envs.reacher:make_reachable_reacher",
            max_episode_steps=50,
            cost_discount=1.0,
            max_budget=4.0,
            cost="1 - d / 0.06, within d < 0.06 m of the unsafe point",
            source="ours: safe/Reacher-v0 with a goal within reach and a detour that costs nothing",
            of_paper=False,
        ),
        TaskSpec(
            id="safe/HalfCheetah-v0",
            entry_point="safe_envs.locomotion:make_half_cheetah",
            max_episode_steps=1000,
            cost_discount=0.99,
            max_budget=384.0,
            cost="|forward speed|, m/s",
            source="FOCOPS (Zhang et al. 2020); budget of D4RL's medium-replay data",
            other_max_budgets={"medium": 414.0, "medium-expert": 731.0},
        ),
        TaskSpec(
            id="safe/Hopper-v0",
            entry_point="safe_envs.locomotion:make_hopper",
            max_episode_steps=1000,
            cost_discount=0.99,
            max_budget=140.0,
            cost="|forward speed|, m/s",
            source="FOCOPS (Zhang et al. 2020); budget of D4RL's medium-replay data",
            other_max_budgets={"medium": 130.0, "medium-expert": 169.0},
        ),
        TaskSpec(
            id="safe/Walker2d-v0",
            entry_point="safe_envs.locomotion:make_walker2d",
            max_episode_steps=1000,
            cost_discount=0.99,
            max_budget=160.0,
            cost="|forward speed|, m/s",
            source="FOCOPS (Zhang et al. 2020); budget of D4RL's medium-replay data",
            other_max_budgets={"medium": 160.0, "medium-expert": 234.0},
        ),
        *(
            TaskSpec(
                id=f"safe/{name}Sum-v0",
                entry_point=f"safe_envs.locomotion:make_{maker}",
                max_episode_steps=1000,
                cost_discount=1.0,
                max_budget=max_budget,
                cost="|forward speed|, m/s" + (f"; {max_budget:g} for a fall" if falls else ""),
                source=f"ours: safe/{name}-v0 with budgets that are plain sums",
                of_paper=False,
                same_but_costs=f"safe/{name}-v0",
            )
            for name, maker, max_budget, falls in (
                ("HalfCheetah", "half_cheetah", 10_000.0, False),
                ("Hopper", "hopper_sum", 4000.0, True),
                ("Walker2d", "walker2d_sum", 4000.0, True),
            )
        ),
        TaskSpec(
            id="safe/CarCircle-v0",
            entry_point="safe_envs.bullet.car_circle:make_car_circle",
            max_episode_steps=500,
            cost_discount=1.0,
            max_budget=150.0,
            cost="1 where |x| > 6 m",
            source="Bullet-Safety-Gym (Gronauer 2022); variant='dsrl' as in DSRL's data",
            variant_steps={"dsrl": 300},
        ),
        TaskSpec(
            id="safe/BallReach-v0",
            entry_point="safe_envs.bullet.ball_reach:make_ball_reach",
            max_episode_steps=250,
            cost_discount=1.0,
            max_budget=35.0,
            cost="1 on touching the box or a puddle",
            source="Bullet-Safety-Gym (Gronauer 2022)",
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


def costs_may_be_negative(spec: EnvSpec | None) -> bool:
    """Returns whether the task of an environment, given its spec, says so."""
    return spec is not None and spec.id in TASKS and TASKS[spec.id].costs_may_be_negative


def time_limit(spec: EnvSpec | None) -> int | None:
    """Returns the steps of a whole episode, given an environment's spec; None if nothing ends it.

    It is the smaller of the limit given to `gym.make` and that of the task's variant.
    """
    if spec is None:
        return None
    limits = [spec.max_episode_steps]
    if spec.id in TASKS:
        limits.append(TASKS[spec.id].variant_steps.get(spec.kwargs.get("variant", "")))
    return min((limit for limit in limits if limit is not None), default=None)
