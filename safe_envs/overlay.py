"""`RenderOverlay`: shows in a picture what the cost sees, and how much of the budget is left."""

import math
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs


class RenderOverlay(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Draws over the pictures of an environment, and adds a footer with gauges to them.

    What the cost sees depends on the cost function of the `CostSignal` inside: the unsafe sector of
    the pendulum, the region that the fingertip should avoid, the speed against its limit, the sides
    of the circle, the obstacles. With any cost, the cost of the last step is shown, and with a
    `BudgetObservation` inside, a bar that empties as the budget is spent.

    A speed that costs by itself has no limit of its own. With a budget, the mark is at the speed
    that would spend what is left of it evenly over what is left of the episode.

    Args:
        env: Environment with `render_mode="rgb_array"`. For a window, put Gymnasium's
            `HumanRendering` around the overlay.

    Raises:
        ValueError: Another render mode.

    Example:
        >>> import gymnasium as gym
        >>> from safe_envs import BudgetObservation, RenderOverlay
        >>> env = gym.make("safe/BallReach-v0", render_mode="rgb_array")
        >>> env = RenderOverlay(BudgetObservation(env, budget=35.0))
        >>> _ = env.reset(seed=0)
        >>> env.render().shape
        (534, 480, 3)
    """

    def __init__(self, env: gym.Env[Any, Any]):
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        if env.render_mode != "rgb_array":
            raise ValueError(
                "RenderOverlay needs gym.make(..., render_mode='rgb_array'). Received "
                f"{env.render_mode!r}. For a window, use HumanRendering(RenderOverlay(env))."
            )
        self._info: dict[str, Any] = {}
        self._num_steps = 0
        self._full_budget = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; the bar is full again."""
        observation, self._info = self.env.reset(seed=seed, options=options)
        self._num_steps = 0
        self._full_budget = self._budget_left() or 0.0
        return observation, self._info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        observation, reward, terminated, truncated, self._info = self.env.step(action)
        self._num_steps += 1
        return observation, reward, terminated, truncated, self._info

    def render(self) -> Any:
        """Returns the environment's picture with all that drawn over it, `(height, width, 3)`."""
        from safe_envs.rendering.gauges import Scene
        from safe_envs.rendering.painters import paint

        frame: Any = self.env.render()
        left = self._budget_left()
        if left is not None:
            self._full_budget = max(self._full_budget, left)  # it may have been raised since
        scene = Scene(
            env=self.unwrapped,
            cost_fn=self._attribute("cost_fn"),
            cost_kwargs=self._attribute("cost_kwargs") or {},
            info=self._info,
            budget_left=left,
            full_budget=self._full_budget,
            affordable_cost=self._affordable_cost(),
        )
        return paint(frame, scene)

    def _attribute(self, name: str) -> Any:
        return self.env.get_wrapper_attr(name) if self.env.has_wrapper_attr(name) else None

    def _budget_left(self) -> float | None:
        """Returns what is not spent of the budget, as the first step counts; None without a budget.

        The remaining budget of a discounted cost grows at every step by 1 / gamma_c. Seen from the
        start, it only shrinks: z_t gamma_c^t = b - sum_k gamma_c^k c_k.
        """
        if "remaining_budget" not in self._info:
            return None
        remaining: float = self._attribute("remaining_budget")
        discount: float = self._attribute("cost_discount")
        return remaining * discount**self._num_steps

    def _affordable_cost(self) -> float | None:
        """Returns the cost per step that spends the remaining budget evenly to the end."""
        steps = self._info.get("remaining_steps")
        if steps is None or steps < 1:
            return None
        discount: float = self._attribute("cost_discount")
        weight = steps if discount == 1.0 else (1.0 - discount**steps) / (1.0 - discount)
        affordable: float = max(self._attribute("remaining_budget"), 0.0) / weight
        return affordable if math.isfinite(affordable) else None
