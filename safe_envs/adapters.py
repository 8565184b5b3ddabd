"""Two ways of reporting a cost: Gymnasium's, in the info, and safety-gymnasium's, in the tuple.

safety-gymnasium's `step` returns `(observation, reward, cost, terminated, truncated, info)`.
"""

from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from safe_envs.cost_signal import cost_of


class ToSafetyGymnasium(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Lets an agent written for safety-gymnasium act in any environment with `info["cost"]`.

    It must be the outermost wrapper, because Gymnasium's other wrappers expect five values.

    Args:
        env: Environment with `info["cost"]`.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import ToSafetyGymnasium
        >>> env = ToSafetyGymnasium(gym.make("safe/Pendulum-v0"))
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, cost, terminated, truncated, info = env.step(env.action_space.sample())
        >>> cost == info["cost"]
        True
    """

    def __init__(self, env: gym.Env[Any, Any]):
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def step(  # type: ignore[override]  # six values is the point
        self, action: Any
    ) -> tuple[Any, SupportsFloat, float, bool, bool, dict[str, Any]]:
        """Steps the environment.

        Raises:
            ValueError: The environment reports no cost.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, float(cost_of(info)), terminated, truncated, info


class FromSafetyGymnasium(gym.Env[Any, Any]):
    """Lets everything here be used on an environment written for safety-gymnasium.

    `info["cost"]` is the cost of the step, and 0.0 after a reset. Costs that the environment itself
    puts into its info under that name are replaced.

    Args:
        env: Any object with the methods and spaces of such an environment.

    Attributes:
        env: That object.

    Example:
        `BudgetObservation(FromSafetyGymnasium(env), budget=25.0)`
    """

    def __init__(self, env: Any):
        self.env = env
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.metadata = getattr(env, "metadata", {"render_modes": []})
        self.render_mode = getattr(env, "render_mode", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; the cost of a reset is 0."""
        super().reset(seed=seed)
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, {**info, "cost": 0.0}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment.

        Raises:
            ValueError: It returns something other than six values.
        """
        result = self.env.step(action)
        if len(result) != 6:
            raise ValueError(
                "A safety-gymnasium environment should return six values: observation, reward, "
                f"cost, terminated, truncated, info. Received {len(result)}. An environment that "
                'reports info["cost"] needs no adapter.'
            )
        observation, reward, cost, terminated, truncated, info = result
        return observation, reward, bool(terminated), bool(truncated), {**info, "cost": float(cost)}

    def render(self) -> Any:
        """Renders the environment."""
        return self.env.render()

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()
