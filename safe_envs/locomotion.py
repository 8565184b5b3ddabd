"""Gymnasium's HalfCheetah, Hopper and Walker2d, judged by their speed.

Physics, observations and rewards are those of Gymnasium's v5. The D4RL data of the paper come from
v2, which differs in what can be undone by keyword arguments (`xml_file="walker2d.xml"` gives
Walker2d back its right foot's friction of 0.9) and in one thing that cannot: v2 pays the survival
bonus on the step of a fall, too.
"""

from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from safe_envs.checks import check_choice
from safe_envs.cost_signal import CostSignal, TerminalCost
from safe_envs.mujoco_task import HalfCheetahEnv, HopperEnv, MujocoTask, Walker2dEnv
from safe_envs.registration import TASKS
from safe_envs.sources import Source
from safe_envs.speed_limit import SpeedLimit

CostName = Literal["speed", "speed_limit"]

# Limits in m/s of safety-gymnasium's velocity tasks v1 (Ji et al. 2023).
SPEED_LIMITS = {"HalfCheetah": 3.2096, "Hopper": 0.7402, "Walker2d": 2.3415}

CAMERA = {"azimuth": 90.0, "elevation": -12.0, "distance": 3.5, "lookat": np.array([0, 0, 0.8])}


class HalfCheetah(MujocoTask, HalfCheetahEnv):
    """Gymnasium's HalfCheetah-v5 with a camera that follows it and infos that keep their keys."""

    step_info = ("x_velocity", "reward_forward", "reward_ctrl")
    followed = True


class Hopper(MujocoTask, HopperEnv):
    """Gymnasium's Hopper-v5 with a camera that follows it and infos that keep their keys."""

    step_info = ("x_velocity", "reward_forward", "reward_ctrl", "reward_survive")
    followed = True


class Walker2d(MujocoTask, Walker2dEnv):
    """Gymnasium's Walker2d-v5 with a camera that follows it and infos that keep their keys."""

    step_info = ("x_velocity", "reward_forward", "reward_ctrl", "reward_survive")
    followed = True


def judge_speed(
    robot: type[HalfCheetah | Hopper | Walker2d],
    render_mode: str | None = None,
    *,
    cost: CostName = "speed",
    speed_limit: Source | None = None,
    observe_speed_limit: bool = False,
    terminal_cost: float = 0.0,
    **env_kwargs: Any,
) -> gym.Env[Any, Any]:
    """Builds a robot whose speed costs.

    Args:
        robot: Its class.
        render_mode: As in Gymnasium.
        cost: `"speed"` is |forward velocity| [m/s] (`costs.speed_cost`, the paper's);
            `"speed_limit"` is 1 above a limit and else 0 (`costs.speed_limit_cost`).
        speed_limit: In m/s; a number, a pair or a function, as in `SpeedLimit`. None takes
            safety-gymnasium's.
        observe_speed_limit: Appends the limit to the observation.
        terminal_cost: What a fall costs, on top of the step's cost. The paper's tasks have none,
            so that to fall is the cheapest end of an episode; the reference code charges 100 where
            it learns, and nothing where it judges.
        **env_kwargs: Those of Gymnasium's environment, such as `terminate_when_unhealthy`,
            `exclude_current_positions_from_observation` and `xml_file`.

    Raises:
        ValueError: Unknown `cost`, a limit for a cost that has none, or a negative
            `terminal_cost`.
    """
    check_choice(cost, "cost", ("speed", "speed_limit"))
    if cost == "speed" and (speed_limit is not None or observe_speed_limit):
        raise ValueError(
            "speed_limit and observe_speed_limit belong to cost='speed_limit'. "
            f"Received cost={cost!r}."
        )
    env_kwargs.setdefault("default_camera_config", CAMERA)
    env: gym.Env[Any, Any] = robot(render_mode=render_mode, **env_kwargs)
    if cost == "speed_limit":
        limit = SPEED_LIMITS[robot.__name__] if speed_limit is None else speed_limit
        env = SpeedLimit(env, limit, observe=observe_speed_limit)
    env = CostSignal(env, f"safe_envs.costs:{cost}_cost")
    return TerminalCost(env, terminal_cost) if terminal_cost else env


make_half_cheetah = partial(judge_speed, HalfCheetah)
make_hopper = partial(judge_speed, Hopper)
make_walker2d = partial(judge_speed, Walker2d)
# A fall costs the largest budget, so that no episode that falls keeps its budget.
make_hopper_sum = partial(make_hopper, terminal_cost=TASKS["safe/HopperSum-v0"].max_budget)
make_walker2d_sum = partial(make_walker2d, terminal_cost=TASKS["safe/Walker2dSum-v0"].max_budget)
