"""The two-link arm of Sauté RL (Sootla et al. 2022), which TREBI evaluates on.

It is Gymnasium's Reacher with the goal moved away, in the order of v2 and v4: the reward judges the
fingertip before the step, and the cost the fingertip after it.

Sauté's geometry is nearly degenerate. The arm reaches 0.21 m, the goal is 1.41 m away, and the
unsafe region begins 3 mm inside the reach: only the straight arm at 45 degrees, which is also the
best pose, costs anything. `geometry="reachable"` is a task of our own with a real trade-off: the
goal can be reached, and the short way to it leads through the unsafe region.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from safe_envs.checks import check_choice, check_number, check_vector
from safe_envs.cost_signal import CostSignal
from safe_envs.mujoco_task import MujocoTask, ReacherEnv
from safe_envs.rendering.canvas import WALL, View

GeometryName = Literal["saute", "reachable"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the goal and the unsafe region are, in meters.

    Attributes:
        goal: Where the fingertip should be, (x, y, z).
        unsafe_center: Center of the unsafe ball, (x, y, z).
        unsafe_radius: Its radius.
        cost_scale: Cost of a step at its center.
    """

    goal: Sequence[float]
    unsafe_center: Sequence[float]
    unsafe_radius: float
    cost_scale: float


GEOMETRIES: dict[GeometryName, Geometry] = {
    "saute": Geometry(
        goal=(1.0, 1.0, 0.01), unsafe_center=(0.5, 0.5, 0.0), unsafe_radius=0.5, cost_scale=100.0
    ),
    "reachable": Geometry(
        goal=(0.14, 0.14, 0.01),
        unsafe_center=(0.19, 0.08, 0.01),
        unsafe_radius=0.06,
        cost_scale=1.0,
    ),
}
VIEWS: dict[GeometryName, View] = {
    "saute": View(center=(0.38, 0.38), half_size=0.76),
    "reachable": View(center=(0.0, 0.0), half_size=0.36),
}


class Reacher(MujocoTask, ReacherEnv):
    """Sauté's arm without a cost.

    Observations `(11,)`: cosines of the two joint angles, their sines, where the target body is
    (x, y) [m], the joints' velocities [rad/s], and the fingertip minus the goal (x, y, z) [m]. An
    action is `(2,)` in [-1, 1], the motors' torques. It never terminates.

    The reward is -|fingertip - goal| - |action|^2. With a goal outside of its rails the target
    body, which only is a picture of the goal, is thrown back by their ends and keeps moving;
    `pin_target` holds it.

    Args:
        render_mode: As in Gymnasium.
        goal: Where the fingertip should be, (x, y, z) [m].
        pin_target: Holds the target body at the goal.
        view: What pictures show.
        **kwargs: Those of Gymnasium's environment, such as `width` and `height`.
    """

    step_info = ("reward_dist", "reward_ctrl")

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        goal: Sequence[float] = GEOMETRIES["saute"].goal,
        pin_target: bool = False,
        view: View = VIEWS["saute"],
        **kwargs: Any,
    ):
        kwargs.setdefault("default_camera_config", _camera(view))
        super().__init__(render_mode=render_mode, **kwargs)
        EzPickle.__init__(self, render_mode, goal=goal, pin_target=pin_target, view=view, **kwargs)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
        self.view = view
        self.goal: FloatArray = np.array(goal, np.float64)
        self._pin_target = pin_target
        self.model.geom("ground").size[:2] = 3.0  # only seen; Sauté's goal is at its corner
        for side in ("sideS", "sideE", "sideN", "sideW"):
            self.model.geom(side).rgba[:3] = np.array(WALL) / 255
        self._fingertip: FloatArray = self.data.body("fingertip").xpos  # a view into the simulation

    def step(self, action: Any) -> tuple[FloatArray, Any, bool, bool, dict[str, Any]]:
        """Takes one step of 0.02 s; the reward judges the fingertip before it."""
        distance = math.dist(self._fingertip, self.goal)
        reward_ctrl = -float(np.dot(action, action))
        self.simulate(action)
        if self._pin_target:
            self.data.qpos[2:] = self.goal[:2]
            self.data.qvel[2:] = 0.0
        if self.render_mode == "human":
            self.render()
        info = {"reward_dist": -distance, "reward_ctrl": reward_ctrl}
        return self._get_obs(), reward_ctrl - distance, False, False, info

    def reset_model(self) -> FloatArray:
        """Starts with the arm nearly straight along +x, and the target body at the goal."""
        noise = self.np_random.uniform(-0.1, 0.1, self.model.nq)
        velocity_noise = self.np_random.uniform(-0.005, 0.005, self.model.nv)
        position, velocity = self.init_qpos + noise, self.init_qvel + velocity_noise
        position[2:], velocity[2:] = self.goal[:2], 0.0
        self.set_state(position, velocity)
        return self._get_obs()

    def position_of(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns where the fingertip is, (x, y) [m], `(*, 2)`, for `(*, 11)`."""
        positions: npt.NDArray[Any] = observations[..., 8:10] + self.goal[:2]
        return positions

    def _get_obs(self) -> FloatArray:
        # The fingertip is where MuJoCo last computed it, up to 3 mm behind the joint angles.
        angles, target = self.data.qpos[:2], self.data.qpos[2:]
        offset = self._fingertip - self.goal
        return np.concatenate([np.cos(angles), np.sin(angles), target, self.data.qvel[:2], offset])


def make_reacher(
    render_mode: str | None = None,
    *,
    geometry: GeometryName = "saute",
    goal: Sequence[float] | None = None,
    unsafe_center: Sequence[float] | None = None,
    unsafe_radius: float | None = None,
    cost_scale: float | None = None,
    pin_target: bool = False,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """Builds `safe/Reacher-v0`: `Reacher` judged by `costs.reacher_cost`.

    Args:
        render_mode: As in Gymnasium.
        geometry: `"saute"`, the paper's, or `"reachable"` (see the module); its numbers are in
            `GEOMETRIES`.
        goal: (x, y, z) [m], instead of the geometry's.
        unsafe_center: (x, y, z) [m], instead of the geometry's.
        unsafe_radius: In meters, instead of the geometry's.
        cost_scale: Cost of a step at the center, instead of the geometry's.
        pin_target: Keeps the goal where it is.
        **kwargs: Those of Gymnasium's environment, such as `width` and `height`.

    Raises:
        TypeError: The radius or the scale is not a number.
        ValueError: Unknown `geometry`, or a number that cannot be one of a geometry.
    """
    check_choice(geometry, "geometry", GEOMETRIES)
    changes = {
        "goal": goal,
        "unsafe_center": unsafe_center,
        "unsafe_radius": unsafe_radius,
        "cost_scale": cost_scale,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = _checked(replace(GEOMETRIES[geometry], **given))  # type: ignore[arg-type]
    env = Reacher(
        render_mode, goal=chosen.goal, pin_target=pin_target, view=VIEWS[geometry], **kwargs
    )
    return CostSignal(env, "safe_envs.costs:reacher_cost", **asdict(chosen))


def make_reachable_reacher(render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Builds `safe/ReacherReachable-v0`: `make_reacher` with the geometry `"reachable"`."""
    return make_reacher(render_mode, **({"geometry": "reachable"} | kwargs))


def _camera(view: View) -> dict[str, Any]:
    """MuJoCo's camera straight above, with a field of view of 45 degrees."""
    distance = view.half_size / math.tan(math.radians(22.5))
    return {
        "lookat": np.array([*view.center, 0.0]),
        "distance": distance,
        "azimuth": 90.0,
        "elevation": -90.0,
    }


def _checked(geometry: Geometry) -> Geometry:
    """Returns the geometry with lists of floats, as they come out of a JSON spec.

    Raises:
        TypeError: The radius or the scale is not a number.
        ValueError: A point that is not three finite numbers, or a number that is not positive.
    """
    for name in ("unsafe_radius", "cost_scale"):
        check_number(getattr(geometry, name), name, positive=True)
    points = {
        name: check_vector(getattr(geometry, name), name, 3, "(x, y, z)").tolist()
        for name in ("goal", "unsafe_center")
    }
    return replace(geometry, **points)
