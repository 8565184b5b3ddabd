"""Real time: the pendulum's clock does not wait for the agent, and the budget is cut on the way.

Every tick the agent is asked for an action; an answer that comes after the next tick is late.
"""

import argparse
import time

import gymnasium as gym
import numpy as np

from safe_diffusion_agent import TrebiAgent
from safe_envs import BudgetObservation

BUDGET, CUT_AT, CUT_TO = 60.0, 80, 8.0  # CUT_TO may still be spent from step CUT_AT on


def main(ticks_per_second: float = 20.0, execution: str = "eager") -> tuple[int, bool]:
    agent = TrebiAgent.load("pendulum", execution=execution)
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=BUDGET)
    obs, info = env.reset(seed=0)
    if execution == "compiled":
        print("compiling the first plan: tens of seconds, unless it was compiled before")
    agent.act(obs["observation"], BUDGET, info["remaining_steps"])  # the first plan takes longer
    seconds, num_late, truncated = [], 0, False
    start = time.perf_counter()
    while not truncated:
        if len(seconds) == CUT_AT:
            env.set_remaining_budget(CUT_TO)
        asked = time.perf_counter()
        action = agent.act(obs["observation"], env.remaining_budget, info["remaining_steps"])
        seconds.append(time.perf_counter() - asked)
        next_tick = start + len(seconds) / ticks_per_second
        num_late += time.perf_counter() > next_tick
        obs, _, _, truncated, info = env.step(action)
        time.sleep(max(0.0, next_tick - time.perf_counter()))
    median, most, longest = 1e3 * np.percentile(seconds, [50, 99, 100])
    print(f"act: median {median:.1f} ms, 99 % {most:.1f} ms, longest {longest:.1f} ms")
    print(f"{num_late} of {len(seconds)} answers were late at {ticks_per_second:g} ticks a second")
    left = info["remaining_budget"]
    print(f"cut to {CUT_TO:g} at step {CUT_AT}; {left:.2f} of it were left over")
    return num_late, left >= 0.0


if __name__ == "__main__":  # such as: real_time.py 50 compiled
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ticks_per_second", type=float, nargs="?", default=20.0)
    parser.add_argument("execution", nargs="?", default="eager", help="eager or compiled")
    main(**vars(parser.parse_args()))
