"""The swing-up pendulum of Sauté RL (Sootla et al. 2022), which TREBI evaluates on.

Its physics differ from Gymnasium's `Pendulum-v1` in the order of two lines (the angle moves before
the velocity is clipped), its reward is shifted and scaled to (0, 1], and its actions are multiplied
by the largest torque, so that only half of the action range is not saturated.
"""

import math
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.pendulum import PendulumEnv, angle_normalize

from safe_envs.checks import check_choice, check_number, check_vector
from safe_envs.cost_signal import CostSignal
from safe_envs.rendering.canvas import View

StartMode = Literal["test", "train", "deterministic"]

# Largest penalty: angle pi, velocity 8 rad/s, torque 2 Nm; rounded up as Sauté does.
REWARD_OFFSET = math.ceil(math.pi**2 + 0.1 * 8.0**2 + 0.001 * 2.0**2)

# Half-widths of the uniform distribution of (angle [rad], angular velocity [rad/s]) at reset, and
# the angle it is centerd on. Upright is 0.
START_STATES: dict[StartMode, tuple[float, float, float]] = {
    "test": (math.pi, 0.2, 0.1),
    "train": (0.0, math.pi, 1.0),
    "deterministic": (math.pi, 0.0, 0.0),
}


class SwingUpPendulum(PendulumEnv):
    """Sauté's pendulum without a cost.

    Observations are `(cos, sin, angular velocity [rad/s])` of the angle from upright,
    counter-clockwise positive; an action is `(1,)` in [-2, 2]. It never terminates.

    Args:
        render_mode: `"human"`, `"rgb_array"` or None.
        mode: Where episodes start: `"test"` hangs down (pi +- 0.2 rad, +- 0.1 rad/s), `"train"` is
            anywhere (+- 1 rad/s), `"deterministic"` hangs at rest. The paper's code collects and
            evaluates in `"test"`; Sauté trains in `"train"`.
        action_scale: Torque [Nm] of a unit action, before clipping to +- 2 Nm. The original
            multiplies by 2; 1.0 makes the action the torque.
        reward: `"saute"`: (17 - penalty) / 17, in (0, 1]. `"gym"`: -penalty, as `Pendulum-v1`.
            The penalty is angle^2 + 0.1 velocity^2 + 0.001 torque^2, before the step.

    Raises:
        TypeError: `action_scale` is not a number.
        ValueError: Unknown `mode` or `reward`, or an `action_scale` that is not positive.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        mode: StartMode = "test",
        action_scale: float = 2.0,
        reward: Literal["saute", "gym"] = "saute",
    ):
        check_choice(mode, "mode", START_STATES)
        check_choice(reward, "reward", ("saute", "gym"))
        check_number(action_scale, "action_scale", positive=True)
        super().__init__(render_mode=render_mode)
        self.view = View(center=(0.0, 0.0), half_size=2.2)  # what Gymnasium's picture shows
        self._mode: StartMode = mode
        self._action_scale = action_scale
        self._reward = reward

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode as `mode` says, or at `options["state"]` = (angle, velocity).

        Raises:
            ValueError: The state is not two finite numbers.
        """
        gym.Env.reset(self, seed=seed)
        center, angle_width, velocity_width = START_STATES[self._mode]
        widths = np.array([angle_width, velocity_width])
        state = np.array([center, 0.0]) + self.np_random.uniform(-widths, widths)
        if options is not None and "state" in options:
            state = check_vector(options["state"], "state", 2, "(angle, velocity)")
        self.state = state
        self.last_u = None
        if self.render_mode == "human":
            self.render()
        return self._get_obs(), {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes one step of 0.05 s; the reward judges the state before it."""
        angle, velocity = self.state
        unclipped_torque = self._action_scale * float(action[0])
        torque = min(max(unclipped_torque, -self.max_torque), self.max_torque)
        penalty = angle_normalize(angle) ** 2 + 0.1 * velocity**2 + 0.001 * torque**2
        gravity_term = 3.0 * self.g / (2.0 * self.l) * math.sin(angle)
        torque_term = 3.0 / (self.m * self.l**2) * torque
        new_velocity = velocity + (gravity_term + torque_term) * self.dt
        new_angle = angle + new_velocity * self.dt  # before the velocity is clipped, as in gym v0
        clipped_velocity = min(max(new_velocity, -self.max_speed), self.max_speed)
        self.state = np.array([new_angle, clipped_velocity])
        self.last_u = torque
        if self.render_mode == "human":
            self.render()
        reward = -penalty if self._reward == "gym" else (REWARD_OFFSET - penalty) / REWARD_OFFSET
        return self._get_obs(), float(reward), False, False, {}

    def position_of(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns where the tip is in the plane of the picture, `(*, 2)` [m], for `(*, 3)`."""
        return np.stack([-observations[..., 1], observations[..., 0]], axis=-1)

    def _get_obs(self) -> npt.NDArray[np.float32]:
        angle, velocity = self.state
        return np.array([math.cos(angle), math.sin(angle), velocity], np.float32)


def make_pendulum(
    render_mode: str | None = None,
    *,
    unsafe_center_deg: float = 25.0,
    half_width_deg: float = 50.0,
    cost_on: Literal["current", "next"] = "current",
    **pendulum_kwargs: Any,
) -> gym.Env[Any, Any]:
    """Builds `safe/Pendulum-v0`: `SwingUpPendulum` judged by `costs.pendulum_cost`.

    Args:
        render_mode: `"rgb_array"`, `"human"` or None.
        unsafe_center_deg: Angle of the largest cost, degrees from upright.
        half_width_deg: Distance at which the cost becomes zero, degrees.
        cost_on: Whether the angle before (the paper) or after the step is judged.
        **pendulum_kwargs: `mode`, `action_scale` and `reward` of `SwingUpPendulum`.

    Raises:
        TypeError: An angle is not a number.
        ValueError: Unknown `cost_on`, an angle that is not finite, or a width that is not positive.
    """
    check_number(unsafe_center_deg, "unsafe_center_deg")
    check_number(half_width_deg, "half_width_deg", positive=True)
    check_choice(cost_on, "cost_on", ("current", "next"))
    return CostSignal(
        SwingUpPendulum(render_mode, **pendulum_kwargs),
        "safe_envs.costs:pendulum_cost",
        center_deg=unsafe_center_deg,
        half_width_deg=half_width_deg,
        on=cost_on,
    )
