"""The exact frontier of SafePendulum: the most return that any budget allows.

    python -m safe_diffusion_agent.experiments.optimum_pendulum [NUM_EPISODES]

Finite-horizon dynamic programming on a grid of angles and velocities maximizes return - lambda *
cost for several lambda; each solution then acts greedily in the real environment, from start states
of the evaluation. The concave hull of (cost, return) is the optimum, up to the error of the grid.
Writes the file that `evaluation.optimum` reads.
"""

import json
import math
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import safe_envs  # noqa: F401
from safe_diffusion_agent.evaluation.optimum import FILES
from safe_diffusion_agent.evaluation.rollout import start_seed
from safe_diffusion_agent.storage import provenance, write_text
from safe_envs.costs import unsafe_angle_cost

Array = npt.NDArray[Any]
Cell = tuple[Array, Array, Array, Array]  # row, column, and the weights inside

ENV_ID = "safe/Pendulum-v0"
NUM_STEPS = 200
NUM_ANGLES, NUM_VELOCITIES, NUM_TORQUES = 481, 241, 21
LAMBDAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 20.0)

ANGLES = np.linspace(-math.pi, math.pi, NUM_ANGLES)  # both ends are the same angle
VELOCITIES = np.linspace(-8.0, 8.0, NUM_VELOCITIES)
TORQUES = np.linspace(-2.0, 2.0, NUM_TORQUES)


def physics(angle: Any, velocity: Any, torque: Any) -> tuple[Any, Any, Any, Any]:
    """Returns the angle, velocity, reward and cost of a step of the environment, vectorized."""
    wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
    reward = (17.0 - (wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2)) / 17.0
    cost = unsafe_angle_cost(np.degrees(wrapped))
    new_velocity = velocity + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05
    return angle + new_velocity * 0.05, np.clip(new_velocity, -8.0, 8.0), reward, cost


def cell(angle: Any, velocity: Any) -> Cell:
    """Returns the lower corner of the grid cell of each state, and the weights inside it."""
    wrapped = (np.asarray(angle) + math.pi) % (2 * math.pi)
    column = wrapped / (2 * math.pi) * (NUM_ANGLES - 1)
    row = (np.asarray(velocity) + 8.0) / 16.0 * (NUM_VELOCITIES - 1)
    i = np.minimum(column.astype(np.int32), NUM_ANGLES - 2)
    j = np.minimum(row.astype(np.int32), NUM_VELOCITIES - 2)
    return i, j, (column - i).astype(np.float32), (row - j).astype(np.float32)


def interpolate(values: Array, i: Array, j: Array, u: Array, v: Array) -> Array:
    """Returns values `(NUM_ANGLES, NUM_VELOCITIES)` in cells, interpolated in both directions."""
    flat, at = values.reshape(-1), i * NUM_VELOCITIES + j
    low = flat[at] * (1 - v) + flat[at + 1] * v
    high = flat[at + NUM_VELOCITIES] * (1 - v) + flat[at + NUM_VELOCITIES + 1] * v
    between: Array = low * (1 - u) + high * u
    return between


def solve(price: float) -> Array:
    """Returns the values of return - price * cost with k steps left, `(k, angle, velocity)`."""
    angle, velocity = np.meshgrid(ANGLES, VELOCITIES, indexing="ij")
    moves = []
    for torque in TORQUES:
        new_angle, new_velocity, reward, cost = physics(angle, velocity, torque)
        gain = (reward - price * cost).astype(np.float32)
        moves.append((gain, cell(new_angle, new_velocity)))
    values = np.zeros((NUM_STEPS + 1, NUM_ANGLES, NUM_VELOCITIES), np.float32)
    for k in range(1, NUM_STEPS + 1):
        best = np.full(angle.shape, -np.inf, np.float32)
        for gain, corner in moves:
            np.maximum(best, gain + interpolate(values[k - 1], *corner), out=best)
        values[k] = best
    return values


def greedy_torque(
    values: Array, price: float, angle: Array, velocity: Array, steps_left: int
) -> Array:
    """Returns the best torque of each state, `(n,)`, on a finer set of torques."""
    torques = np.linspace(-2.0, 2.0, 4 * NUM_TORQUES - 3)[:, None]
    new_angle, new_velocity, reward, cost = physics(angle[None], velocity[None], torques)
    later = interpolate(values[steps_left - 1], *cell(new_angle, new_velocity))
    best: Array = torques[np.argmax(reward - price * cost + later, axis=0), 0]
    return best


def act_greedily(values: Array, price: float, states: Array) -> tuple[Array, Array]:
    """Returns return and cost of episodes from states `(n, 2)`, in the model of the environment."""
    angle, velocity = states.T.copy()
    returns, costs = np.zeros(len(states)), np.zeros(len(states))
    for step in range(NUM_STEPS):
        torque = greedy_torque(values, price, angle, velocity, NUM_STEPS - step)
        angle, velocity, reward, cost = physics(angle, velocity, torque)
        returns, costs = returns + reward, costs + cost
    return returns, costs


def start_states(num_episodes: int) -> Array:
    """Returns angle and velocity at the start of the episodes of an evaluation, `(n, 2)`."""
    env: Any = gym.make(ENV_ID).unwrapped
    states = []
    for episode in range(num_episodes):
        env.reset(seed=start_seed(0, episode))
        states.append(env.state)
    return np.array(states)


def check_against_environment(states: Array) -> None:
    """Checks that the model is the environment: same torques, same reward and cost."""
    torques = np.random.default_rng(0).uniform(-2.0, 2.0, NUM_STEPS)
    env: gym.Env[Any, Any] = gym.make(ENV_ID, action_scale=1.0)
    env.reset(options={"state": states[0]})
    angle, velocity = states[0]
    for torque in torques:
        angle, velocity, reward, cost = physics(angle, velocity, torque)
        _, given_reward, _, _, info = env.step(np.array([torque]))
        assert abs(float(given_reward) - reward) < 1e-9 and abs(info["cost"] - cost) < 1e-5


def hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points (cost, return) of the concave hull, from the left."""
    chain: list[tuple[float, float]] = []
    for x, y in sorted(points):
        while len(chain) >= 2:
            (x1, y1), (x2, y2) = chain[-2:]
            if (y2 - y1) * (x - x1) > (y - y1) * (x2 - x1):
                break
            chain.pop()
        chain.append((x, y))
    return chain


def main(num_episodes: int = 60) -> None:
    """Solves, checks and writes the optimum.

    Args:
        num_episodes: Start states.
    """
    states = start_states(num_episodes)
    check_against_environment(states)
    points = []
    for price in LAMBDAS:
        returns, costs = act_greedily(solve(price), price, states)
        points.append(
            {
                "lambda": price,
                "mean_cost": float(costs.mean()),
                "max_cost": float(costs.max()),
                "mean_return": float(returns.mean()),
            }
        )
        print(points[-1], flush=True)
    document = {
        "points": points,
        "hull": hull([(point["mean_cost"], point["mean_return"]) for point in points]),
        "provenance": provenance(),
    }
    write_text(FILES[ENV_ID], json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
