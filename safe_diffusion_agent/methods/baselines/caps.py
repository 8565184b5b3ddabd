"""CAPS: constraint-adaptive policy switching (Chemingui et al., AAAI 2025), with IQL critics.

One policy network has two heads. The first maximizes reward, the second minimises cost, both by
weighted regression on the data's actions (IQL, Kostrikov et al. 2022, Eqs. 5 to 7, once for reward
and once for cost). The budget is not seen in training. To act, among the heads whose action's cost
Q_c fits the remaining budget, the one with the larger Q_r is taken; if none fits, the one that
costs least.

Written from the paper and the facts of its public code, of which no line is copied. Of these facts,
settings decide on seven:

- The standard deviations of the heads are no registered parameters, so that they stay 1
  (`learned_std`).
- Its dataset, OSRL's, says that an episode is done at its time limit, too: values end there
  (`time_limit_ends`).
- The training script's expectiles are 0.7, or 0.5 for some tasks; the class's own are 0.9
  (`expectile`, `cost_expectile`).
- A budget is converted as if an episode had a given length, by default 300 steps (`extra_steps`: by
  how many that is more than the task's). More steps make what may be spent at once smaller.
- The training script divides rewards by ten; the class does not (`reward_scale`).
- Observations are not normalized (`raw_observations`).
- The heads' means, in [-1, 1], are fitted to actions in the environment's units, and multiplied by
  the largest action to act (`raw_actions`): with a largest action of 2, what was learned is
  doubled.

Departures: there are two heads, as by default in the public code, which can have more; the learning
rate of the policy is constant, where the public code's falls by a few percent. Where actions do not
reach as far down as up, or not as far in one dimension as in another, `raw_actions` stretches means
to the space of actions, where the public code takes the largest action of the first dimension.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.networks import GaussianPolicy, TwinCritic, mlp, move_towards
from safe_diffusion_agent.learning.transitions import Batch, UnitNormalizer
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.config import (
    TrainingConfig,
    critic_cost_discount,
    remaining_critic_budget,
)
from safe_diffusion_agent.methods.baselines.fitting import BaselineTraining
from safe_diffusion_agent.settings import check, check_positive, check_shares

MAX_WEIGHT = 100.0  # of a transition in the policies' losses, as in IQL


@dataclass(frozen=True, kw_only=True)
class CapsConfig:
    """Settings of CAPS; the defaults are those of its public code, but for the two `raw_*`.

    These are off, so that agents that were saved before there were such settings act as they did.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        expectile: tau of the reward's value function.
        cost_expectile: The same for cost.
        temperature: beta, inverse temperature of the reward head.
        cost_temperature: The same for the cost head.
        reward_scale: Multiplies rewards in training.
        learned_std: Whether the standard deviations of the heads are trained; else they stay 1.
        time_limit_ends: Whether values end where the time limit ended an episode; else only a
            termination is an end.
        extra_steps: Steps beyond the time limit that a budget is converted with; no effect where
            the task discounts costs as the critics do.
        raw_observations: Whether the networks see observations in environment units; else they are
            normalized.
        raw_actions: Whether the networks see the data's actions in environment units, and the
            heads' means are stretched from [-1, 1] to the action space to act; else actions are
            learned in [-1, 1], too.
    """

    preset: str = "custom"
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            num_steps=100_000,
            batch_size=512,
            width=512,
            actor_learning_rate=3e-4,
            critic_learning_rate=3e-4,
        )
    )
    expectile: float = 0.7
    cost_expectile: float = 0.7
    temperature: float = 3.0
    cost_temperature: float = 3.0
    reward_scale: float = 0.1
    learned_std: bool = False
    time_limit_ends: bool = True
    extra_steps: int = 0
    raw_observations: bool = False
    raw_actions: bool = False

    def __post_init__(self) -> None:
        check_shares(self, ("expectile", "cost_expectile"))
        check_positive(self, ("reward_scale",))
        for name in ("temperature", "cost_temperature", "extra_steps"):
            check(getattr(self, name) >= 0, f"{name} should be >= 0", getattr(self, name))


# "quick" is ours: a sixth of the steps, smaller networks, larger learning rates, the expectiles of
# the public code's class instead of its training script's, standard deviations that are learned,
# values that go on after a time limit, observations and actions that are normalized.
PRESETS = {
    "paper": CapsConfig(preset="paper", raw_observations=True, raw_actions=True),
    "quick": CapsConfig(
        preset="quick",
        training=TrainingConfig(
            num_steps=15_000, width=128, actor_learning_rate=1e-3, critic_learning_rate=1e-3
        ),
        expectile=0.9,
        cost_expectile=0.9,
        learned_std=True,
        time_limit_ends=False,
    ),
}


class CapsNetworks(nn.Module):
    """What acts: the two heads, and the critics that choose between them.

    Args:
        obs_dim: O.
        act_dim: A.
        width: Width of the hidden layers.
    """

    def __init__(self, obs_dim: int, act_dim: int, width: int):
        super().__init__()
        self.policy = GaussianPolicy(obs_dim, act_dim, width, num_heads=2)
        self.reward_critic = TwinCritic(obs_dim, act_dim, width)
        self.cost_critic = TwinCritic(obs_dim, act_dim, width)


def switch(reward_values: Tensor, cost_values: Tensor, budget: Tensor) -> Tensor:
    """Chooses a head (CAPS, Alg. 1): the most reward that the budget allows, else the least cost.

    Args:
        reward_values: Q_r of each head's action, `(N, heads)`.
        cost_values: Q_c, `(N, heads)`, in the units of `budget`.
        budget: `(N,)`.

    Returns:
        Indices, `(N,)`.
    """
    allowed = cost_values < budget[:, None]
    best = reward_values.masked_fill(~allowed, -torch.inf).argmax(dim=1)
    return torch.where(allowed.any(dim=1), best, cost_values.argmin(dim=1))


def seen_actions(actions: Tensor, config: CapsConfig, task: Task) -> Tensor:
    """Returns actions `(*, A)` in [-1, 1] as the networks see them: stretched, where raw."""
    if not config.raw_actions:
        return actions
    low, high = actions.new_tensor(task.action_low), actions.new_tensor(task.action_high)
    return low + (actions + 1.0) / 2.0 * (high - low)


def expectile_loss(advantage: Tensor, expectile: float) -> Tensor:
    """Returns the asymmetric squared loss L_2^tau of advantages (IQL, Eq. 5)."""
    weight = torch.where(advantage > 0, expectile, 1.0 - expectile)
    return (weight * advantage**2).mean()


class CapsTraining(BaselineTraining):
    """IQL on reward and on cost, and two policies by weighted regression.

    Args:
        networks: What the agent acts with.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: CapsNetworks, config: CapsConfig, task: Task):
        super().__init__(networks, config)
        networks.policy.log_std.requires_grad_(config.learned_std)
        self.task, self.cost_discount = task, critic_cost_discount(task, config.training)
        width = config.training.width
        self.reward_value = mlp(task.obs_dim, width, width, 1)
        self.cost_value = mlp(task.obs_dim, width, width, 1)
        self.reward_target = copy.deepcopy(networks.reward_critic).requires_grad_(False)
        self.cost_target = copy.deepcopy(networks.cost_critic).requires_grad_(False)
        self.learning_rates = {"networks.policy": config.training.actor_learning_rate}

    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of a batch."""
        del generator
        config, networks = self.config, self.networks
        actions = seen_actions(batch.actions, config, self.task)
        reward_value = self.reward_value(batch.obs)[:, 0]
        cost_value = self.cost_value(batch.obs)[:, 0]
        with torch.no_grad():
            next_reward_value = self.reward_value(batch.next_obs)[:, 0]
            next_cost_value = self.cost_value(batch.next_obs)[:, 0]
            reward_q = self.reward_target(batch.obs, actions).amin(dim=0)
            cost_q = self.cost_target(batch.obs, actions).amax(dim=0)
        discount, continues = config.training.discount, batch.continues
        if config.time_limit_ends:
            continues = continues * (1.0 - batch.is_last)
        reward_target = config.reward_scale * batch.rewards + (
            discount * continues * next_reward_value
        )
        cost_target = batch.costs + self.cost_discount * continues * next_cost_value
        reward_advantage = reward_q - reward_value
        saving = cost_value - cost_q
        weights = torch.stack(
            [config.temperature * reward_advantage, config.cost_temperature * saving], dim=1
        )
        weights = weights.detach().exp().clamp_max(MAX_WEIGHT)
        log_prob = networks.policy.log_prob(batch.obs, actions)
        return {
            "reward_value": expectile_loss(reward_advantage, config.expectile),
            "cost_value": expectile_loss(saving, config.cost_expectile),
            "reward_critic": networks.reward_critic.loss(batch.obs, actions, reward_target),
            "cost_critic": networks.cost_critic.loss(batch.obs, actions, cost_target),
            "policy": -(weights * log_prob).mean(),
        }

    def after_step(self) -> None:
        """Moves the target networks."""
        rate = self.config.training.target_rate
        move_towards(self.reward_target, self.networks.reward_critic, rate)
        move_towards(self.cost_target, self.networks.cost_critic, rate)


class CapsAgent(BaselineAgent):
    """Switches between a policy for reward and one for low cost, by the remaining budget."""

    method: ClassVar[str] = "caps"
    config_class: ClassVar[Any] = CapsConfig
    training_class: ClassVar[Any] = CapsTraining
    unread: ClassVar[tuple[str, ...]] = ("generator_learning_rate",)
    changeable: ClassVar[tuple[str, ...]] = ("extra_steps",)
    config: CapsConfig

    @property
    def looks_at_time(self) -> bool:
        """Whether the budget is converted by the steps that are left."""
        return self.task.cost_discount == 1.0

    @classmethod
    def build(cls, config: CapsConfig, task: Task) -> nn.Module:
        """Returns untrained networks."""
        return CapsNetworks(task.obs_dim, task.act_dim, config.training.width)

    @classmethod
    def fit_normalizer(cls, episodes: Episodes, config: CapsConfig) -> UnitNormalizer:
        """Returns what the networks see of a dataset; it leaves raw observations as they are."""
        fitted = UnitNormalizer.fit(episodes)
        if not config.raw_observations:
            return fitted
        return replace(fitted, mean=torch.zeros_like(fitted.mean), std=torch.ones_like(fitted.std))

    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del generator
        actions: Tensor = networks.policy(obs)
        states = obs[:, None].expand(-1, actions.shape[1], -1)
        seen = seen_actions(actions, self.config, self.task)
        chosen = switch(
            networks.reward_critic(states, seen).amin(dim=0),
            networks.cost_critic(states, seen).amax(dim=0),
            remaining_critic_budget(
                budget, steps + self.config.extra_steps, self.task, self.config.training
            ),
        )
        return actions[torch.arange(len(actions), device=actions.device), chosen]
