"""A world that is solved by hand, for several tests of the frontier."""

from types import SimpleNamespace

import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition
from safe_diffusion_agent.methods.trebi.config import ModelConfig, TrebiConfig
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.planner import Sampler


class Shop(DynamicsEnsemble):
    """Spending a in [0, 1] costs a and returns a: buy all where the price is below 1, else none."""

    def __init__(self):
        super().__init__(1, 1, 4, 1)
        self.trusted_steps.fill_(4)

    def step(self, obs, actions, members=None):
        spent = actions[:, 0]
        return Transition(torch.zeros_like(obs), spent, spent, torch.ones(len(obs)))


def sampler_of(dynamics, critic, denoiser=None, *, sampler_class=Sampler, horizon=4) -> Sampler:
    """A sampler of the given networks; nothing is normalized, and T is 2."""
    dim = dynamics.obs_dim + len(critic.action_low)
    task = Task(
        env_id=None, obs_dim=dynamics.obs_dim, act_dim=len(critic.action_low),
        action_low=(0.0,), action_high=(1.0,), max_episode_steps=critic.max_steps,
        cost_discount=critic.cost_discount, max_budget=10.0,
    )  # fmt: skip
    model = ModelConfig(network="mlp", judge="frontier", horizon=horizon, diffusion_steps=2)
    networks = SimpleNamespace(dynamics=dynamics, critic=critic, denoiser=denoiser)
    one = torch.ones(dim)
    return sampler_class(
        networks,
        NoiseSchedule.cosine(2),
        Normalizer(0 * one, one, -9 * one, 9 * one),
        TrebiConfig(preset="custom", model=model),
        task,
    )
