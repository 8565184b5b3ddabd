"""A ball that is pushed from goal to goal, among puddles and round a box that moves."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle
from gymnasium.wrappers import HumanRendering

from safe_envs.bullet.ball_bodies import BALL_RADIUS, add_ball, add_box, add_room
from safe_envs.bullet.ball_layout import BallLayout, draw_goal, draw_layout
from safe_envs.bullet.pictures import draw_ball_reach
from safe_envs.bullet.world import World, check_render_mode
from safe_envs.checks import check_count, check_number
from safe_envs.cost_signal import CostSignal
from safe_envs.rendering.canvas import View

FloatArray = npt.NDArray[np.float64]

MAX_FORCE = 3.5  # N
ROOM_SIZE = 10.0
NUM_RAYS, RAY_LENGTH = 24, 5.0
PUDDLE_RADIUS = 1.0
BOX_ORBIT = 0.7  # m, circled once in 2 pi seconds
GOAL_RADIUS, GOAL_MAX_SPEED = 1.3, 5.0
ACTION_PENALTY = 0.005

VIEW = View(center=(0.0, 0.0), half_size=10.6)

_ANGLES = [2.0 * math.pi * index / NUM_RAYS for index in range(NUM_RAYS)]
RAYS = np.array([(RAY_LENGTH * math.sin(a), RAY_LENGTH * math.cos(a), 0.0) for a in _ANGLES])


class BallReach(gym.Env[FloatArray, Any], EzPickle):
    """Bullet-Safety-Gym's ball, without a cost.

    Observations `(57,)`: x / 10, y / 10 [m], velocity x, y / 5 [m/s], angular velocity / 10
    [rad/s] (3); 24 rays around the ball that see walls and the box up to 5 m, 1 at no distance and
    0 for nothing, clockwise from +y; the same for the nearest puddle in each of 24 sectors; and
    the goal minus the ball, x, y / 20 [m]. An action is `(2,)` in [-1, 1], the force on the ball in
    x and y, where 1 is 3.5 N; what is beyond is clipped. It never terminates.

    The reward of a step is how much nearer the goal came [m], minus 0.005 |action|, plus
    `goal_bonus` where the goal is reached: within 1.3 m, slower than 5 m/s. A new goal appears
    then.

    The info has what the cost is made of: `"touches_box"` (bool) and `"num_puddles"` (int), those
    whose center is within 1.5 m of the ball's.

    Args:
        render_mode: `"rgb_array"` or None.
        num_puddles: As many as fit are possible.
        moving_box: Whether the box circles, once in 2 pi seconds, or stays.
        goal_bonus: Reward of a goal.
        width: Of pictures, in pixels.
        height: Of pictures, in pixels.

    Attributes:
        layout: The episode's `BallLayout`.
        goal: The current goal, (x, y) [m].

    Raises:
        TypeError: A number is not one, or not a whole one.
        ValueError: Unknown `render_mode`, or a number that is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        num_puddles: int = 8,
        moving_box: bool = True,
        goal_bonus: float = 5.0,
        width: int = 480,
        height: int = 480,
    ):
        check_count(num_puddles, "num_puddles")
        check_number(goal_bonus, "goal_bonus")
        check_count(width, "width", minimum=1)
        check_count(height, "height", minimum=1)
        EzPickle.__init__(
            self,
            render_mode,
            num_puddles=num_puddles,
            moving_box=moving_box,
            goal_bonus=goal_bonus,
            width=width,
            height=height,
        )
        self.render_mode = check_render_mode(render_mode)
        self.observation_space = gym.spaces.Box(-1000.0, 1000.0, (57,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.view = VIEW
        self._size = (width, height)
        self._num_puddles = num_puddles
        self._orbit = BOX_ORBIT if moving_box else 0.0
        self._goal_bonus = goal_bonus
        self._world = World(time_step=1 / 60, num_substeps=1, ground_half_size=10.0)
        add_room(self._world)
        self._ball = add_ball(self._world)
        self._box, self._box_joint = add_box(self._world)
        self.layout = draw_layout(np.random.default_rng(0), num_puddles)
        self.goal: FloatArray = self.layout.goals[0]
        self._goals_ahead: list[FloatArray] = []
        self._goal_distance = 0.0
        self._num_steps = 0

    @property
    def box_pose(self) -> tuple[FloatArray, float]:
        """Where the box is now, (x, y) [m], and how it is turned [rad]."""
        bullet = self._world.bullet
        position, orientation = bullet.getBasePositionAndOrientation(self._box)
        return np.array(position[:2]), bullet.getEulerFromQuaternion(orientation)[2]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts in a random layout, or in `options["layout"]`, a `BallLayout`.

        Raises:
            TypeError: The layout is something else.
        """
        super().reset(seed=seed)
        layout = (options or {}).get("layout") or draw_layout(self.np_random, self._num_puddles)
        if not isinstance(layout, BallLayout):
            raise TypeError(f"options['layout'] should be a BallLayout. Received {layout!r}.")
        self.layout = layout
        self._world.restore()
        self._world.place(self._ball, (*layout.ball, BALL_RADIUS), layout.ball_yaw)
        self._world.place(self._box, (*layout.box, 0.0), layout.box_yaw)
        self._goals_ahead = list(layout.goals)
        self._next_goal(layout.ball)
        self._num_steps = 0
        self._simulate()
        ball, velocity = self._ball_state()
        return self._observe(ball, velocity), self._info(ball)

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Pushes for 1/60 s."""
        push = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        bullet = self._world.bullet
        position, _ = bullet.getBasePositionAndOrientation(self._ball)
        force = (MAX_FORCE * push[0], MAX_FORCE * push[1], 0.0)
        bullet.applyExternalForce(self._ball, -1, force, position, bullet.WORLD_FRAME)
        self._num_steps += 1
        self._simulate()
        ball, velocity = self._ball_state()
        distance = _norm(self.goal - ball[:2])
        reward = self._goal_distance - distance - ACTION_PENALTY * _norm(push)
        self._goal_distance = distance
        if distance < GOAL_RADIUS and _norm(velocity[:3]) < GOAL_MAX_SPEED:
            reward += self._goal_bonus
            self._next_goal(ball[:2])
        return self._observe(ball, velocity), reward, False, False, self._info(ball)

    def _simulate(self) -> None:
        """Moves the box's joint to where its circle is now, and simulates one step."""
        angle = self._num_steps * self._world.dt + self.layout.box_phase
        x = self.layout.box[0] + self._orbit * math.sin(angle)
        y = self.layout.box[1] + self._orbit * math.cos(angle)
        self._world.bullet.changeConstraint(self._box_joint, (x, y, 0.0))
        self._world.bullet.stepSimulation()

    def _ball_state(self) -> tuple[FloatArray, FloatArray]:
        """Returns position `(3,)`, and linear and angular velocity `(6,)`."""
        bullet = self._world.bullet
        position, _ = bullet.getBasePositionAndOrientation(self._ball)
        linear, angular = bullet.getBaseVelocity(self._ball)
        return np.array(position), np.array(linear + angular)

    def _next_goal(self, ball: FloatArray) -> None:
        if not self._goals_ahead:
            others = np.vstack([self.layout.puddles, self.box_pose[0], ball])
            self._goals_ahead.append(draw_goal(self.np_random, others))
        self.goal = self._goals_ahead.pop(0)
        self._goal_distance = _norm(self.goal - ball)

    def _observe(self, ball: FloatArray, velocity: FloatArray) -> FloatArray:
        bullet = self._world.bullet
        hits = bullet.rayTestBatch([ball.tolist()] * NUM_RAYS, (ball + RAYS).tolist())
        rays = [1.0 - hit[2] for hit in hits]
        sectors = puddle_sectors(ball[:2], self.layout.puddles)
        to_goal = (self.goal - ball[:2]) / (2.0 * ROOM_SIZE)
        return np.concatenate(
            [0.1 * ball[:2], 0.2 * velocity[:2], 0.1 * velocity[3:], rays, sectors, to_goal]
        )

    def _info(self, ball: FloatArray) -> dict[str, Any]:
        touches = bool(self._world.bullet.getContactPoints(self._ball, self._box))
        distances = np.sqrt(np.square(self.layout.puddles - ball[:2]).sum(axis=1))
        num_puddles = int(np.count_nonzero(distances <= PUDDLE_RADIUS + BALL_RADIUS))
        return {"touches_box": touches, "num_puddles": num_puddles}

    def render(self) -> Any:
        """Returns a picture from above, `(height, width, 3)`; None without a render mode."""
        if self.render_mode is None:
            return None
        ball, _ = self._ball_state()
        box, box_yaw = self.box_pose
        return draw_ball_reach(
            self.view,
            self._size,
            ball=ball[:2],
            box=box,
            box_yaw=box_yaw,
            puddles=self.layout.puddles,
            goal=self.goal,
            goal_radius=GOAL_RADIUS,
        )

    def close(self) -> None:
        """Frees the simulation."""
        self._world.close()


def puddle_sectors(ball: FloatArray, puddles: FloatArray) -> FloatArray:
    """Returns how near the nearest puddle is in each sector around the ball.

    Args:
        ball: (x, y) [m].
        puddles: Centers, `(n, 2)` [m].

    Returns:
        `(24,)`: 1 at no distance, 0 from 5 m on.
    """
    offset = ball - puddles
    nearness = np.maximum(0.0, 1.0 - np.sqrt(np.square(offset).sum(axis=1)) / RAY_LENGTH)
    angles = np.arctan2(offset[:, 0], offset[:, 1]) + np.pi
    sectors = np.floor(angles / (2.0 * np.pi / NUM_RAYS)).astype(np.int64) % NUM_RAYS
    nearest = np.zeros(NUM_RAYS)
    np.maximum.at(nearest, sectors, nearness)
    return nearest


def make_ball_reach(render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Builds `safe/BallReach-v0`: `BallReach` judged by `costs.ball_reach_cost`.

    Args:
        render_mode: `"human"`, `"rgb_array"` or None.
        **kwargs: Keyword arguments of `BallReach`.
    """
    drawn = "rgb_array" if render_mode == "human" else render_mode
    env: gym.Env[Any, Any] = BallReach(drawn, **kwargs)
    env = CostSignal(env, "safe_envs.costs:ball_reach_cost")
    return HumanRendering(env) if render_mode == "human" else env


def _norm(vector: FloatArray) -> float:
    return math.sqrt(float(vector @ vector))
