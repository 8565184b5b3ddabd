"""Worlds that an agent was not trained for, and how episodes are played in them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.moving_budgets import Scheduled
from safe_diffusion_agent.evaluation.rollout import Policy, Rollout, rollout, start_seed

START_SEED = 7000  # of the start states; nothing was tuned on them

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shift:
    """What is changed: mass or friction by a factor, or the observations by noise.

    Attributes:
        name: In tables.
        mass: Factor on all masses.
        friction: Factor on friction and damping.
        noise: Standard deviation of normal noise, as a share of that of each observation in the
            data. The cost is that of the true state.
    """

    name: str
    mass: float = 1.0
    friction: float = 1.0
    noise: float = 0.0


NO_SHIFT = Shift("none")
SHIFTS = (
    NO_SHIFT,
    Shift("mass x 1.25", mass=1.25),
    Shift("mass x 1.5", mass=1.5),
    Shift("mass x 0.7", mass=0.7),
    Shift("friction x 0.6", friction=0.6),
    Shift("friction x 1.6", friction=1.6),
    Shift("noise 0.05", noise=0.05),
    Shift("noise 0.15", noise=0.15),
)


class Shifted(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in another world.

    Args:
        env: The environment.
        shift: What is changed.
        noise: Standard deviation of the noise of each observation, `(O,)`.
    """

    def __init__(self, env: gym.Env[Any, Any], shift: Shift, noise: Array):
        super().__init__(env)
        self._noise = noise
        self._rng = np.random.default_rng(0)
        world: Any = env.unwrapped
        if hasattr(world, "model"):  # MuJoCo
            world.model.body_mass[:] *= shift.mass
            world.model.body_inertia[:] *= shift.mass
            world.model.geom_friction[:] *= shift.friction
            world.model.dof_damping[:] *= shift.friction
        else:
            world.m *= shift.mass

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Resets the environment, and with a seed the noise."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observed(obs), info

    def step(self, action: Any) -> Any:
        """Steps the environment; the observation is noisy."""
        obs, *others = self.env.step(action)
        return self._observed(obs), *others

    def _observed(self, obs: Array) -> Array:
        return (obs + self._rng.normal(size=obs.shape) * self._noise).astype(obs.dtype)


def shifts_of(env_id: str) -> list[Shift]:
    """Returns the shifts that a task can have: some have no friction, or no mass to change."""
    world = gym.make(env_id).unwrapped
    mujoco, pendulum = hasattr(world, "model"), hasattr(world, "m")
    return [
        shift
        for shift in SHIFTS
        if (shift.mass == 1.0 or mujoco or pendulum) and (shift.friction == 1.0 or mujoco)
    ]


def play(
    agent: Any,
    budgets: Array,
    risks: Array | float | None,
    episodes: Array,
    *,
    more: float = 0.0,
    shift: Shift = NO_SHIFT,
    grants: Array | None = None,
    act: Policy | None = None,
) -> tuple[Array, Array, Rollout]:
    """Runs episodes in lockstep, with random numbers of their own.

    Args:
        agent: Loaded without a margin of its own.
        budgets: `(n,)`, in cost units.
        risks: The agent is told the budget less its margin for a risk; a number, `(n,)` or None.
        episodes: `(n,)`, indices of the start states.
        more: What is held back on top of that, in cost units.
        shift: The world.
        grants: Changes of the budgets, `(T, n)`; None: none.
        act: Takes the place of the agent's `act`.

    Returns:
        Returns `(n,)`, discounted costs `(n,)`, and the rollout.
    """
    chosen = act or partial(agent.act, generator=agent.new_generator())
    discount = agent.cost_discount

    def policy(obs: Any, remaining: Array, steps: Array) -> Array:
        return chosen(obs, remaining - held_back(agent, risks, steps) - more, steps)

    options: dict[str, Any] = {}
    if shift != NO_SHIFT:
        noise = shift.noise * agent.normalizer.std[agent.task.act_dim :].cpu().numpy()
        options = {"wrappers": [lambda env: Shifted(env, shift, noise)]}
    run = rollout(
        policy if grants is None else Scheduled(policy, grants, discount),
        agent.task.env_id,
        budgets,
        [start_seed(START_SEED, int(k)) for k in episodes],
        cost_discount=discount,
        **options,
    )
    return run.rewards.sum(axis=0), discounted_sum(run.costs, discount), run


def held_back(agent: Any, risks: Array | float | None, steps: Array) -> Array:
    """Returns what the agent holds back at steps `(n,)` for a risk, or one each; None is nothing.

    A risk that the agent has too few scores for gives infinity.
    """
    margins = np.zeros(len(steps))
    of_each = np.broadcast_to(np.nan if risks is None else risks, margins.shape)
    for risk in np.unique(of_each[~np.isnan(of_each)]):
        rows = of_each == risk
        margins[rows] = agent.margin_for(float(risk), steps[rows])
    return margins


def grid(*axes: Any) -> list[Array]:
    """Returns all combinations, one flat array per axis."""
    return [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
