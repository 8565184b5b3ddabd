"""The exact frontier of SafePendulum: the most return that any budget allows.

    python benchmarks/optimum_pendulum.py [--episodes 60]

Finite-horizon dynamic programming on a grid of angles and velocities maximises return - lambda *
cost for several lambda; each solution then acts greedily in the real environment, from start states
of the evaluation. The concave hull of (cost, return) is the optimum, up to the error of the grid.
Hanging still is the other end of the scale: share of the optimum = (return - hanging still) /
(optimum - hanging still). Writes the file that safe_diffusion_agent/optimum.py reads.
"""

import argparse
import json
import math

import gymnasium as gym
import numpy as np
from rich.progress import track

import safe_envs  # noqa: F401
from safe_diffusion_agent.evaluation.optimum import FILES
from safe_diffusion_agent.evaluation.rollout import start_seed
from safe_diffusion_agent.storage import provenance
from safe_envs.costs import unsafe_angle_cost

ENV_ID = "safe/Pendulum-v0"
NUM_STEPS = 200
NUM_ANGLES, NUM_VELOCITIES, NUM_TORQUES = 481, 241, 21
LAMBDAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 20.0)
OUTPUT = FILES[ENV_ID]

ANGLES = np.linspace(-math.pi, math.pi, NUM_ANGLES)  # both ends are the same angle
VELOCITIES = np.linspace(-8.0, 8.0, NUM_VELOCITIES)
TORQUES = np.linspace(-2.0, 2.0, NUM_TORQUES)


def physics(angle, velocity, torque):
    """One step of the environment (see safe_envs.pendulum): state, reward and cost, vectorised."""
    wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
    reward = (17.0 - (wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2)) / 17.0
    cost = unsafe_angle_cost(np.degrees(wrapped))
    new_velocity = velocity + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05
    return angle + new_velocity * 0.05, np.clip(new_velocity, -8.0, 8.0), reward, cost


def cell(angle, velocity):
    """Indices of the lower corner of the grid cell of a state, and the weights inside it."""
    wrapped = (np.asarray(angle) + math.pi) % (2 * math.pi)
    column = wrapped / (2 * math.pi) * (NUM_ANGLES - 1)
    row = (np.asarray(velocity) + 8.0) / 16.0 * (NUM_VELOCITIES - 1)
    i = np.minimum(column.astype(np.int32), NUM_ANGLES - 2)
    j = np.minimum(row.astype(np.int32), NUM_VELOCITIES - 2)
    return i, j, (column - i).astype(np.float32), (row - j).astype(np.float32)


def interpolate(values, i, j, u, v):
    """Bilinear interpolation of `values` (NUM_ANGLES, NUM_VELOCITIES)."""
    flat, at = values.reshape(-1), i * NUM_VELOCITIES + j
    low = flat[at] * (1 - v) + flat[at + 1] * v
    high = flat[at + NUM_VELOCITIES] * (1 - v) + flat[at + NUM_VELOCITIES + 1] * v
    return low * (1 - u) + high * u


def solve(return_weight: float, cost_weight: float) -> np.ndarray:
    """Values with k steps left, `(NUM_STEPS + 1, NUM_ANGLES, NUM_VELOCITIES)`."""
    angle, velocity = np.meshgrid(ANGLES, VELOCITIES, indexing="ij")
    moves = []
    for torque in TORQUES:
        new_angle, new_velocity, reward, cost = physics(angle, velocity, torque)
        gain = (return_weight * reward - cost_weight * cost).astype(np.float32)
        moves.append((gain, cell(new_angle, new_velocity)))
    values = np.zeros((NUM_STEPS + 1, NUM_ANGLES, NUM_VELOCITIES), np.float32)
    for k in range(1, NUM_STEPS + 1):
        best = np.full(angle.shape, -np.inf, np.float32)
        for gain, corner in moves:
            np.maximum(best, gain + interpolate(values[k - 1], *corner), out=best)
        values[k] = best
    return values


def greedy_torque(values, return_weight, cost_weight, angle, velocity, steps_left):
    """Best torque of each state, `(n,)`, on a finer set of torques."""
    torques = np.linspace(-2.0, 2.0, 4 * NUM_TORQUES - 3)[:, None]
    new_angle, new_velocity, reward, cost = physics(angle[None], velocity[None], torques)
    later = interpolate(values[steps_left - 1], *cell(new_angle, new_velocity))
    return torques[np.argmax(return_weight * reward - cost_weight * cost + later, axis=0), 0]


def act_greedily(values, return_weight, cost_weight, states):
    """Return and cost of episodes from start states `(n, 2)`, in the model of the environment."""
    angle, velocity = states.T.copy()
    returns, costs = np.zeros(len(states)), np.zeros(len(states))
    for step in range(NUM_STEPS):
        torque = greedy_torque(
            values, return_weight, cost_weight, angle, velocity, NUM_STEPS - step
        )
        angle, velocity, reward, cost = physics(angle, velocity, torque)
        returns, costs = returns + reward, costs + cost
    return returns, costs


def start_states(num_episodes: int) -> np.ndarray:
    env, states = gym.make(ENV_ID).unwrapped, []
    for episode in range(num_episodes):
        env.reset(seed=start_seed(0, episode))
        states.append(env.state)
    return np.array(states)


def check_against_environment(states) -> None:
    """The model is the environment: same torques, same return and cost."""
    torques = np.random.default_rng(0).uniform(-2.0, 2.0, NUM_STEPS)
    env = gym.make(ENV_ID, action_scale=1.0)
    env.reset(options={"state": states[0]})
    angle, velocity = states[0]
    for torque in torques:
        angle, velocity, reward, cost = physics(angle, velocity, torque)
        _, given_reward, _, _, info = env.step(np.array([torque]))
        assert abs(given_reward - reward) < 1e-9 and abs(info["cost"] - cost) < 1e-5


def hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Concave hull of (cost, return) from the left: no point is above a line between two others."""
    chain: list[tuple[float, float]] = []
    for x, y in sorted(points):
        while len(chain) >= 2:
            (x1, y1), (x2, y2) = chain[-2:]
            if (y2 - y1) * (x - x1) > (y - y1) * (x2 - x1):
                break
            chain.pop()
        chain.append((x, y))
    return chain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=60)
    options = parser.parse_args()
    states = start_states(options.episodes)
    check_against_environment(states)
    points = []
    for weight in track(LAMBDAS, "solve"):
        values = solve(1.0, weight)
        returns, costs = act_greedily(values, 1.0, weight, states)
        points.append(
            {
                "lambda": weight,
                "mean_cost": float(costs.mean()),
                "max_cost": float(costs.max()),
                "mean_return": float(returns.mean()),
            }
        )
    still = np.zeros(len(states))
    angle, velocity = states.T.copy()
    for _ in range(NUM_STEPS):
        angle, velocity, reward, _ = physics(angle, velocity, 0.0)
        still += reward
    document = {
        "points": points,
        "hull": hull([(point["mean_cost"], point["mean_return"]) for point in points]),
        "hanging_still": float(still.mean()),
        "provenance": provenance(),
    }
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
