"""The whole loop: an agent that is handed the remaining budget at every step."""

import argparse

import gymnasium as gym

from safe_diffusion_agent import TrebiAgent
from safe_envs import BudgetObservation


def main(budget: float = 30.0, agent_path: str = "pendulum", seed: int = 0) -> tuple[float, float]:
    agent = TrebiAgent.load(agent_path)
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=budget)
    obs, info = env.reset(seed=seed)
    episode_return, done = 0.0, False
    while not done:
        action = agent.act(obs["observation"], info["remaining_budget"], info["remaining_steps"])
        obs, reward, terminated, truncated, info = env.step(action)
        episode_return += float(reward)
        done = terminated or truncated
    spent = budget - info["remaining_budget"]
    print(f"budget {budget:g}: return {episode_return:.1f}, cost {spent:.2f}")
    return episode_return, spent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("budget", type=float, nargs="?", default=30.0, help="in cost units")
    main(**vars(parser.parse_args()))
