"""Worlds that an agent was not trained for, and how episodes are played in them."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from safe_diffusion_agent.evaluation.schedules import Scheduled, total_cost

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.rollout import Rollout, rollout, start_seed

START_SEED = 7000  # of the start states; nothing was tuned on them


@dataclass(frozen=True)
class Shift:
    """What is changed: the mass or the friction by a factor, or the observations by noise.

    The noise is normal, with a standard deviation of so many of those that an observation has in
    the data. The cost is that of the true state.
    """

    name: str
    mass: float = 1.0
    friction: float = 1.0
    noise: float = 0.0


SHIFTS = (
    Shift("none"),
    Shift("mass x 1.25", mass=1.25),
    Shift("mass x 1.5", mass=1.5),
    Shift("mass x 0.7", mass=0.7),
    Shift("friction x 0.6", friction=0.6),
    Shift("friction x 1.6", friction=1.6),
    Shift("noise 0.05", noise=0.05),
    Shift("noise 0.15", noise=0.15),
)


class Shifted(gym.Wrapper):
    """An environment in another world."""

    def __init__(self, env: gym.Env, shift: Shift, std: np.ndarray):
        super().__init__(env)
        self._std = shift.noise * std
        self._rng = np.random.default_rng(0)
        world = env.unwrapped
        if hasattr(world, "model"):  # MuJoCo
            world.model.body_mass[:] *= shift.mass
            world.model.body_inertia[:] *= shift.mass
            world.model.geom_friction[:] *= shift.friction
            world.model.dof_damping[:] *= shift.friction
        else:
            world.m *= shift.mass

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observed(obs), info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observed(obs), reward, terminated, truncated, info

    def _observed(self, obs):
        return (obs + self._rng.normal(size=obs.shape) * self._std).astype(obs.dtype)


def shifts_of(env_id: str) -> list[Shift]:
    """Those that the task knows: the pendulum has no friction, the Bullet tasks no handle."""
    world = gym.make(env_id).unwrapped
    mujoco, pendulum = hasattr(world, "model"), hasattr(world, "m")
    return [
        shift
        for shift in SHIFTS
        if (shift.mass == 1.0 or mujoco or pendulum) and (shift.friction == 1.0 or mujoco)
    ]


def play(
    agent: TrebiAgent,
    budgets: np.ndarray,
    held_back: np.ndarray | float,
    episodes: np.ndarray,
    *,
    shift: Shift = SHIFTS[0],
    grants: np.ndarray | None = None,
    act: Any = None,
    seed: int = START_SEED,
) -> dict[str, np.ndarray]:
    """Episodes in lockstep: their `return`, `cost`, and the `run` itself.

    Args:
        agent: Loaded without a margin of its own.
        budgets: `(n,)`.
        held_back: Margin that the agent is told the budget less of, one number or `(n,)`.
        episodes: `(n,)`, indices of the start states.
        shift: The world.
        grants: Schedule, `(T, n)`; see `schedules`.
        act: Instead of the agent's `act`.
        seed: With the episode's index, it gives the start state.
    """
    act = act or agent.act
    agent.generator = agent.new_generator()

    def policy(obs, remaining, steps):
        return act(obs, remaining - held_back, steps)

    discount = agent.cost_discount
    std = agent.normalizer.std[agent.task.act_dim :].cpu().numpy()
    options = {} if shift.name == "none" else {"wrappers": [lambda env: Shifted(env, shift, std)]}
    run: Rollout = rollout(
        policy if grants is None else Scheduled(policy, grants, discount),
        agent.task.env_id,
        budgets,
        [start_seed(seed, int(k)) for k in episodes],
        cost_discount=discount,
        **options,
    )
    return {"return": run.rewards.sum(axis=0), "cost": total_cost(run, discount), "run": run}


def grid(*axes) -> list[np.ndarray]:
    """All combinations, one flat array per axis."""
    return [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
