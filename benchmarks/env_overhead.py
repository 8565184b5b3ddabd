"""What cost and budget add to the time of a step: each task with our wrappers and without.

    python benchmarks/env_overhead.py [--repeats 200] [--milliseconds 5] [--task ID]

*Bare* is the task's own physics in the wrappers that `gym.make` puts round every environment;
*wrapped* is `BudgetObservation(gym.make(id))`, cost included. Both take the same actions from the
same seeds, in short blocks one after the other, so that they do the same work at the same moment;
every repeat gives one ratio of the two. CPU time of the thread is measured. The interval of a
median is the exact one for 95 % (order statistics). Writes results/env_overhead.json.
"""

import argparse
import json
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from rich.progress import track
from scipy.stats import binom

from safe_diffusion_agent.storage import provenance
from safe_envs import TASKS, BudgetObservation

OUTPUT = Path(__file__).parent.parent / "results" / "env_overhead.json"
SEED, BUDGET, TARGET = 0, 1000.0, 1.10

# What our tasks start from; ours pay for a cost, a budget and Gymnasium's own work.
GYMNASIUM_IDS = {
    "safe/Pendulum-v0": "Pendulum-v1",
    "safe/Reacher-v0": "Reacher-v5",
    "safe/HalfCheetah-v0": "HalfCheetah-v5",
    "safe/Hopper-v0": "Hopper-v5",
    "safe/Walker2d-v0": "Walker2d-v5",
}


class Stepper:
    """Steps an environment by a fixed row of actions, and resets it outside of the measured time.

    Two of them with the same physics and seeds go through the same states.
    """

    def __init__(self, env: gym.Env):
        self.env = env
        self._seed = SEED
        self._actions = np.random.default_rng(SEED)
        self.env.reset(seed=SEED)

    def seconds_of(self, num_steps: int) -> float:
        """CPU seconds of so many steps."""
        space, step = self.env.action_space, self.env.step
        actions = self._actions.uniform(space.low, space.high, (num_steps, *space.shape))
        actions = list(actions.astype(space.dtype))
        total, start = 0, time.thread_time_ns()
        for action in actions:
            _, _, terminated, truncated, _ = step(action)
            if terminated or truncated:
                total += time.thread_time_ns() - start
                self._seed += 1
                self.env.reset(seed=self._seed)
                start = time.thread_time_ns()
        return 1e-9 * (total + time.thread_time_ns() - start)


def bare(env_id: str) -> gym.Env:
    """The task without cost and budget."""
    physics = gym.make(env_id).unwrapped
    limit = TASKS[env_id].max_episode_steps
    return TimeLimit(OrderEnforcing(PassiveEnvChecker(physics)), limit)


def median_interval(values: np.ndarray) -> list[float]:
    """95 % interval of the median, by order statistics."""
    ordered = np.sort(values)
    below = int(binom.ppf(0.025, len(ordered), 0.5))
    return [float(ordered[max(below - 1, 0)]), float(ordered[len(ordered) - max(below, 1)])]


def measure(env_id: str, num_repeats: int, milliseconds: float) -> dict:
    kinds = {
        "bare": Stepper(bare(env_id)),
        "wrapped": Stepper(BudgetObservation(gym.make(env_id), budget=BUDGET)),
    }
    if env_id in GYMNASIUM_IDS:
        kinds["gymnasium"] = Stepper(gym.make(GYMNASIUM_IDS[env_id]))
    warm_up = [stepper.seconds_of(200) for stepper in kinds.values()]
    num_steps = max(5, round(1e-3 * milliseconds / (warm_up[0] / 200)))
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(num_repeats):
        order = list(kinds) if repeat % 2 else list(kinds)[::-1]
        for kind in order:
            seconds[kind].append(kinds[kind].seconds_of(num_steps))
    times = {kind: 1e6 * np.array(values) / num_steps for kind, values in seconds.items()}
    ratios, added = times["wrapped"] / times["bare"], times["wrapped"] - times["bare"]
    row = {
        "task": env_id,
        "repeats": num_repeats,
        "steps_per_repeat": num_steps,
        "microseconds": {kind: float(np.median(values)) for kind, values in times.items()},
        "added_microseconds": float(np.median(added)),
        "ratio": float(np.median(ratios)),
        "ratio_interval_95": median_interval(ratios),
        "at_most_10_percent": bool(np.median(ratios) <= TARGET),
    }
    if "gymnasium" in times:
        to_base = times["wrapped"] / times["gymnasium"]
        row["gymnasium_id"] = GYMNASIUM_IDS[env_id]
        row["ratio_to_gymnasium"] = float(np.median(to_base))
        row["ratio_to_gymnasium_interval_95"] = median_interval(to_base)
    for stepper in kinds.values():
        stepper.env.close()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--milliseconds", type=float, default=5.0, help="of a block of steps")
    parser.add_argument("--task", choices=TASKS, help="this one only; prints, writes nothing")
    options = parser.parse_args()
    chosen = [options.task] if options.task else list(TASKS)
    rows = [
        measure(env_id, options.repeats, options.milliseconds)
        for env_id in track(chosen, "measuring")
    ]
    for row in rows:
        low, high = row["ratio_interval_95"]
        print(
            f"{row['task']:22} {row['microseconds']['bare']:6.1f} us bare, "
            f"{row['added_microseconds']:.1f} us more, ratio {row['ratio']:.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    if not options.task:
        document = {"tasks": rows, "seed": SEED, "provenance": provenance()}
        OUTPUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
