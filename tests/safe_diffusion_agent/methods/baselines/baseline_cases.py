"""Small cases that several tests of baselines share."""

import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.transitions import Batch


def task(obs_dim=1) -> Task:
    return Task(
        env_id=None, obs_dim=obs_dim, act_dim=1, action_low=(-1.0,), action_high=(1.0,),
        max_episode_steps=10, cost_discount=1.0, max_budget=10.0, dataset_id="d",
        dataset_fingerprint="f",
    )  # fmt: skip


def batch(**changed) -> Batch:
    values = {
        "obs": torch.zeros(2, 1), "actions": torch.zeros(2, 1), "rewards": torch.ones(2),
        "costs": torch.tensor([2.0, 3.0]), "next_obs": torch.ones(2, 1),
        "continues": torch.tensor([1.0, 0.0]), "is_last": torch.tensor([0.0, 1.0]),
        "spent": torch.zeros(2), "positions": torch.zeros(2),
    }  # fmt: skip
    return Batch(**(values | changed))


def answers(critic, reward_of_action):
    """Replaces a twin critic by two functions of the action."""
    critic.forward = lambda states, actions: torch.stack(
        [function(actions[..., 0]) for function in reward_of_action]
    )
