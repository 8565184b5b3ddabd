"""What a dataset says about the environment that its episodes are of."""

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import (
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    TimeLimit,
)

from safe_diffusion_agent.errors import DatasetError
from safe_envs import TASKS, CostSignal, RecordEpisodeCost, RenderOverlay

OF_MAKE = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
WATCHERS = (RecordEpisodeStatistics, RecordEpisodeCost, RecordVideo, RenderOverlay)


def facts_of(env: gym.Env[Any, Any], cost_discount: float | None = None) -> dict[str, Any]:
    """Returns the metadata of a dataset that are facts of its environment, as JSON values.

    Args:
        env: The environment that is acted in.
        cost_discount: gamma_c. None takes the task's; of an environment that is no task of
            `safe_envs`, 1.
    """
    task = TASKS.get(env_id_of(env) or "")
    if cost_discount is None:
        cost_discount = 1.0 if task is None else task.cost_discount
    if not 0.0 < cost_discount <= 1.0:
        raise ValueError(f"cost_discount should be in (0, 1]. Received {cost_discount}.")
    facts = {
        "cost_function": _cost_function(env),
        "cost_key": "infos/cost",
        "cost_discount": cost_discount,
        "max_episode_steps": time_limit(env),
    }
    if task is not None:
        facts |= {"cost": task.cost, "costs_may_be_negative": task.costs_may_be_negative}
    return {name: value for name, value in facts.items() if value is not None}


def env_id_of(env: gym.Env[Any, Any]) -> str | None:
    """Returns the id that makes the environment again.

    None if it has none, or was wrapped after `gym.make`, which ends with wrappers of its own, in
    something that may change what is seen, done or paid.
    """
    while isinstance(env, WATCHERS):
        env = env.env
    spec = env.spec
    return spec.id if spec is not None and isinstance(env, OF_MAKE) else None


def time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Returns the steps after which episodes are truncated, or None."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None if env.spec is None else env.spec.max_episode_steps


def check_spaces(env: gym.Env[Any, Any]) -> None:
    """Refuses an environment that no agent could learn to act in.

    Raises:
        DatasetError: A space is not a one-dimensional Box.
    """
    spaces = {"observation": env.observation_space, "action": env.action_space}
    for name, space in spaces.items():
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise DatasetError(
                f"The {name} space should be a one-dimensional Box, but is {space}. Wrap the "
                "environment, for example in gymnasium.wrappers.FlattenObservation."
            )


def _cost_function(env: gym.Env[Any, Any]) -> str | None:
    """Returns the name of the environment's cost function, if a `CostSignal` gives the cost."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, CostSignal):
            return env.cost_function
        env = env.env
    return None
