"""A racing car that should drive clockwise on a circle, and stay inside a band narrower than it."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle
from gymnasium.wrappers import HumanRendering, TimeLimit

from safe_envs.bullet.pictures import draw_car_circle
from safe_envs.bullet.world import DATA_PATH, World, check_render_mode
from safe_envs.checks import check_choice, check_count, check_number
from safe_envs.cost_signal import CostSignal
from safe_envs.registration import TASKS
from safe_envs.rendering.canvas import View

FloatArray = npt.NDArray[np.float64]
Variant = Literal["original", "dsrl"]

# Physics time step [s] and steps of it per action.
TIMING: dict[Variant, tuple[float, int]] = {"original": (1 / 240, 4), "dsrl": (1 / 60, 6)}

CIRCLE_RADIUS = 7.0
ARENA_SIZE = 10.0  # divides the observed distance from the circle
START_RADII = (2.0, 4.0)
START_HEIGHT = 0.2

# Of pybullet_data's racecar: joints by what they do, and tyres as the original has them.
NUM_JOINTS = 20
DRIVE_JOINTS, STEERING_JOINTS = (8, 15), (0, 2)
RANDOM_JOINTS = (0, 1, 2, 3, 8, 9, 10, 11, 13, 15, 16, 17, 18, 19)
TYRE_FRICTION = {1: 1.1, 3: 1.1, 12: 0.7, 14: 0.7}
MAX_WHEEL_SPEED, WHEEL_FORCE = 40.0, 20.0  # rad/s, N
MAX_STEERING = 0.5  # rad

# The differential, as gears: (parent joint, child joint, ratio, auxiliary link or None).
GEARS = (
    (9, 11, 1, None),
    (10, 13, -1, None),
    (9, 13, -1, None),
    (16, 18, 1, None),
    (16, 19, -1, None),
    (17, 19, -1, None),
    (1, 18, -1, 15),
    (3, 19, -1, 15),
)

VIEW = View(center=(0.0, 0.0), half_size=13.2)


@dataclass(frozen=True, kw_only=True)
class CarStart:
    """Where an episode starts.

    Attributes:
        position: (x, y) of the car's center of mass [m].
        yaw: Heading [rad]; not wrapped, because the simulation depends on its last digit.
        joint_angles: `(14,)` [rad], of `RANDOM_JOINTS`.
    """

    position: FloatArray
    yaw: float
    joint_angles: FloatArray


def draw_start(rng: np.random.Generator) -> CarStart:
    """Draws a start: uniform in a ring around the center.

    As in the original, the car heads counter-clockwise, and has to turn round to be rewarded.
    """
    angles = rng.uniform(-0.1, 0.1, len(RANDOM_JOINTS))
    low, high = START_RADII
    position = rng.uniform(-high, high, 2)
    while not low <= np.linalg.norm(position) <= high:
        position = rng.uniform(-high, high, 2)
    yaw = math.atan2(-position[1], -position[0]) + 1.5 * math.pi
    return CarStart(position=position, yaw=yaw, joint_angles=angles)


class CarCircle(gym.Env[FloatArray, Any], EzPickle):
    """Bullet-Safety-Gym's car on a circle, without a cost.

    Observations `(8,)`: x / 10, y / 10 [m], velocity x, y [m/s], sine and cosine of the heading,
    yaw rate / 10 [rad/s], and the distance from the circle / 10 [m], outwards positive. An action
    is `(2,)` in [-1, 1]: speed of the driven wheels (1 is 40 rad/s, 6 m/s) and steering angle (1
    is 0.5 rad); what is beyond is clipped. It never terminates.

    The reward of a step is 0.1 (y v_x - x v_y) / (1 + |r - 7|) with r the distance from the
    center: clockwise and fast, near the circle of 7 m.

    Args:
        render_mode: `"rgb_array"` or None.
        variant: `"original"`, the paper's: 60 actions per second. `"dsrl"`: 10 per second with a
            coarser time step, as in the fork on PyPI (bullet-safety-gym 1.4) that DSRL's data come
            from; its episodes are shorter, too.
        width: Of pictures, in pixels.
        height: Of pictures, in pixels.

    Raises:
        TypeError: A size is not a whole number.
        ValueError: Unknown `variant` or `render_mode`, or a size below 1.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        variant: Variant = "original",
        width: int = 480,
        height: int = 480,
    ):
        check_choice(variant, "variant", TIMING)
        check_count(width, "width", minimum=1)
        check_count(height, "height", minimum=1)
        EzPickle.__init__(self, render_mode, variant=variant, width=width, height=height)
        time_step, num_substeps = TIMING[variant]
        self._world = World(time_step=time_step, num_substeps=num_substeps, ground_half_size=15.0)
        for index in range(8):
            self._world.add_box((0.1, 5.0, 1.0), (12.0, 0.0, 1.0), yaw=index * math.pi / 4)
        self._car = _add_car(self._world)
        self.render_mode = check_render_mode(render_mode)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / self._world.dt)}
        self.observation_space = gym.spaces.Box(-1000.0, 1000.0, (8,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.view = VIEW
        self._size = (width, height)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts at a random place, or at `options["start"]`, a `CarStart`.

        Raises:
            TypeError: The start is something else.
        """
        super().reset(seed=seed)
        start = (options or {}).get("start") or draw_start(self.np_random)
        if not isinstance(start, CarStart):
            raise TypeError(f"options['start'] should be a CarStart. Received {start!r}.")
        bullet = self._world.bullet
        for joint in range(NUM_JOINTS):  # a motor's target survives `restore`
            bullet.setJointMotorControl2(
                self._car, joint, bullet.VELOCITY_CONTROL, targetVelocity=0.0, force=0.0
            )
        self._world.restore()
        for joint, angle in zip(RANDOM_JOINTS, start.joint_angles, strict=True):
            bullet.resetJointState(self._car, joint, angle, 0.0)
        self._world.place(self._car, (*start.position, START_HEIGHT), start.yaw)
        bullet.stepSimulation()
        return self._observe()[0], {}

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Drives for `dt` seconds."""
        throttle, steering = np.clip(np.asarray(action, np.float64), -1.0, 1.0).tolist()
        bullet = self._world.bullet
        for joint in DRIVE_JOINTS:
            bullet.setJointMotorControl2(
                self._car,
                joint,
                bullet.VELOCITY_CONTROL,
                targetVelocity=MAX_WHEEL_SPEED * throttle,
                force=WHEEL_FORCE,
            )
        for joint in STEERING_JOINTS:
            bullet.setJointMotorControl2(
                self._car, joint, bullet.POSITION_CONTROL, targetPosition=MAX_STEERING * steering
            )
        bullet.stepSimulation()
        observation, reward = self._observe()
        return observation, reward, False, False, {}

    def _observe(self) -> tuple[FloatArray, float]:
        """Returns the observation, and the reward of being there at that speed."""
        bullet = self._world.bullet
        (x, y, _), orientation = bullet.getBasePositionAndOrientation(self._car)
        (velocity_x, velocity_y, _), (*_, yaw_rate) = bullet.getBaseVelocity(self._car)
        yaw = bullet.getEulerFromQuaternion(orientation)[2]
        off_circle = math.sqrt(x * x + y * y) - CIRCLE_RADIUS
        observation = np.array(
            [0.1 * x, 0.1 * y, velocity_x, velocity_y, math.sin(yaw), math.cos(yaw)]
            + [0.1 * yaw_rate, off_circle / ARENA_SIZE]
        )
        return observation, 0.1 * (y * velocity_x - x * velocity_y) / (1.0 + abs(off_circle))

    def render(self) -> Any:
        """Returns a picture from above, `(height, width, 3)`; None without a render mode."""
        if self.render_mode is None:
            return None
        bullet = self._world.bullet
        (x, y, _), orientation = bullet.getBasePositionAndOrientation(self._car)
        yaw = bullet.getEulerFromQuaternion(orientation)[2]
        steering = bullet.getJointState(self._car, STEERING_JOINTS[0])[0]
        return draw_car_circle(
            self.view, self._size, (x, y), yaw, steering=steering, circle_radius=CIRCLE_RADIUS
        )

    def close(self) -> None:
        """Frees the simulation."""
        self._world.close()


def make_car_circle(
    render_mode: str | None = None,
    *,
    variant: Variant = "original",
    x_limit: float = 6.0,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """Builds `safe/CarCircle-v0`: `CarCircle` judged by `costs.car_circle_cost`.

    Args:
        render_mode: `"human"`, `"rgb_array"` or None.
        variant: `"original"`, or `"dsrl"` as in DSRL's data.
        x_limit: Half the width of the safe band [m].
        **kwargs: `width` and `height` of `CarCircle`.

    Raises:
        TypeError: `x_limit` is not a number.
        ValueError: `x_limit` is not a positive number.
    """
    check_number(x_limit, "x_limit", positive=True)
    drawn = "rgb_array" if render_mode == "human" else render_mode
    env: gym.Env[Any, Any] = CarCircle(drawn, variant=variant, **kwargs)
    env = CostSignal(env, "safe_envs.costs:car_circle_cost", x_limit=x_limit)
    if variant in (steps := TASKS["safe/CarCircle-v0"].variant_steps):
        env = TimeLimit(env, steps[variant])
    return HumanRendering(env) if render_mode == "human" else env


def _add_car(world: World) -> int:
    bullet = world.bullet
    car = int(
        bullet.loadURDF(
            f"{DATA_PATH}/racecar/racecar_differential.urdf",
            [0.0, 0.0, START_HEIGHT],
            globalScaling=3,
            flags=bullet.URDF_IGNORE_VISUAL_SHAPES,
        )
    )
    for link, friction in TYRE_FRICTION.items():
        bullet.changeDynamics(car, link, lateralFriction=friction)
    for parent, child, ratio, auxiliary in GEARS:
        gear = bullet.createConstraint(
            car, parent, car, child, bullet.JOINT_GEAR, [0, 1, 0], [0, 0, 0], [0, 0, 0]
        )
        extra = {} if auxiliary is None else {"gearAuxLink": auxiliary}
        bullet.changeConstraint(gear, gearRatio=ratio, maxForce=10_000, **extra)
    return car
