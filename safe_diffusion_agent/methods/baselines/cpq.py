"""CPQ: constraints penalized Q-learning (Xu et al., AAAI 2022), for one budget l.

Actions unlike the data's are treated as unsafe: a variational autoencoder of the data's actions
tells them (the divergence of their latents from the prior is large), and their cost is pushed up to
l. Values of reward are backed up through safe actions only, and the policy gets no credit for
others:

    Q_c:   E[(Q_c - c - gamma Q_c')^2] - alpha (E_ood[Q_c] - l),   alpha >= 0 the multiplier
    Q_r:   r + gamma 1[Q_c(s', a') <= l] Q_r(s', a')
    pi:    max E[1[Q_c(s, a) <= l] Q_r(s, a)]

From TREBI's App. D: the multiplier's learning rate, and the border of "unlike", the 0.75-quantile
of the data's divergences, here those of the batch. Departure: the autoencoder is trained jointly
with the rest.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.networks import (
    ActionGenerator,
    GaussianPolicy,
    TwinCritic,
    frozen,
    latent_divergence,
    move_towards,
)
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.config import (
    QUICK_TRAINING,
    RATIOS,
    TrainingConfig,
    budget_of_ratio,
    check_ratios,
    critic_cost_discount,
)
from safe_diffusion_agent.methods.baselines.fitting import BaselineTraining
from safe_diffusion_agent.settings import check, check_positive, check_shares


@dataclass(frozen=True, kw_only=True)
class CpqConfig:
    """Settings of CPQ.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        ratios: Budgets to train for, as shares of the maximum budget.
        kl_weight: Weight of the divergence in the autoencoder's loss.
        ood_quantile: Quantile of the data's divergences above which an action is unlike them.
        num_ood_actions: Actions of the policy per state to look at.
        multiplier_learning_rate: Of alpha, plain gradient steps.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    ratios: tuple[float, ...] = RATIOS
    kl_weight: float = 0.5
    ood_quantile: float = 0.75
    num_ood_actions: int = 10
    multiplier_learning_rate: float = 0.01

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_shares(self, ("ood_quantile",))
        check_positive(self, ("num_ood_actions", "multiplier_learning_rate"))
        check(self.kl_weight >= 0, "kl_weight should be >= 0", self.kl_weight)


# The cost critic is backed up through the policy's own actions, whose cost is pushed up: with the
# targets of the other quick baselines, ten times as fast, it grows without end.
_SLOW_TARGETS = replace(QUICK_TRAINING, target_rate=0.005)
PRESETS = {
    "paper": CpqConfig(preset="paper"),
    "quick": CpqConfig(preset="quick", training=_SLOW_TARGETS),
}


class CpqNetworks(nn.Module):
    """Policy, critics, and the autoencoder that knows the data's actions."""

    def __init__(self, config: CpqConfig, task: Task):
        super().__init__()
        sizes = (task.obs_dim, task.act_dim, config.training.width)
        self.policy = GaussianPolicy(*sizes)
        self.generator = ActionGenerator(*sizes)
        self.reward_critic = TwinCritic(*sizes)
        self.cost_critic = TwinCritic(*sizes)


def penalized(reward_value: Tensor, cost_value: Tensor, budget: float) -> Tensor:
    """Returns values of reward, zero where the cost is over the budget."""
    return torch.where(cost_value <= budget, reward_value, 0.0)


class CpqTraining(BaselineTraining):
    """Trains for the one budget of the config's ratios.

    Args:
        networks: What is trained.
        config: Settings, with one ratio.
        task: What to train for.
    """

    def __init__(self, networks: CpqNetworks, config: CpqConfig, task: Task):
        super().__init__(networks, config)
        self.cost_discount = critic_cost_discount(task, config.training)
        (ratio,) = config.ratios
        self.budget = budget_of_ratio(ratio, task, self.cost_discount)
        self.reward_target = copy.deepcopy(networks.reward_critic).requires_grad_(False)
        self.cost_target = copy.deepcopy(networks.cost_critic).requires_grad_(False)
        self.multiplier = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.learning_rates = {
            "networks.policy": config.training.actor_learning_rate,
            "networks.generator": config.training.generator_learning_rate,
        }

    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of a batch; moves the multiplier, too."""
        networks, config = self.networks, self.config
        with torch.no_grad():
            next_actions = networks.policy.sample(batch.next_obs, 1, generator)[:, 0]
            next_cost = self.cost_target(batch.next_obs, next_actions).amax(dim=0)
            next_reward = self.reward_target(batch.next_obs, next_actions).amin(dim=0)
            safe_reward = penalized(next_reward, next_cost, self.budget)
            reward_target = batch.rewards + config.training.discount * batch.continues * safe_reward
            cost_target = batch.costs + self.cost_discount * batch.continues * next_cost
        shortfall = self.budget - self.cost_of_unlike_actions(batch, generator)
        losses = {
            "generator": networks.generator.loss(
                batch.obs, batch.actions, config.kl_weight, generator
            ),
            "reward_critic": networks.reward_critic.loss(batch.obs, batch.actions, reward_target),
            "cost_critic": networks.cost_critic.loss(batch.obs, batch.actions, cost_target)
            + self.multiplier.clone() * shortfall,
            "policy": self._policy_loss(batch, generator),
        }
        with torch.no_grad():
            self.multiplier.add_(config.multiplier_learning_rate * shortfall).clamp_(min=0.0)
        return losses

    def cost_of_unlike_actions(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Returns E_ood[Q_c], the mean cost of the policy's actions that are unlike the data's.

        Where there are none, it is the budget, so that nothing is pushed.
        """
        networks, num = self.networks, self.config.num_ood_actions
        with torch.no_grad():
            actions = networks.policy.sample(batch.obs, num, generator)
            states = batch.obs[:, None].expand(-1, num, -1)
            of_data = latent_divergence(*networks.generator.encode(batch.obs, batch.actions))
            divergence = latent_divergence(*networks.generator.encode(states, actions))
            unlike = divergence > of_data.quantile(self.config.ood_quantile)
        if not unlike.any():
            return torch.as_tensor(self.budget, device=batch.obs.device)
        costs: Tensor = networks.cost_critic(states[unlike], actions[unlike])
        return costs.mean()

    def _policy_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        networks = self.networks
        actions = networks.policy.sample(batch.obs, 1, generator)[:, 0]
        with torch.no_grad():
            cost = networks.cost_critic(batch.obs, actions).amax(dim=0)
        with frozen(networks.reward_critic):
            reward = networks.reward_critic(batch.obs, actions).amin(dim=0)
        return -penalized(reward, cost, self.budget).mean()

    def after_step(self) -> None:
        """Moves the target networks."""
        rate = self.config.training.target_rate
        move_towards(self.reward_target, self.networks.reward_critic, rate)
        move_towards(self.cost_target, self.networks.cost_critic, rate)


class CpqAgent(BaselineAgent):
    """CPQ, one training per budget; acts by the mean of its policy."""

    method: ClassVar[str] = "cpq"
    config_class: ClassVar[Any] = CpqConfig
    training_class: ClassVar[Any] = CpqTraining
    per_budget = True
    config: CpqConfig

    @classmethod
    def build(cls, config: CpqConfig, task: Task) -> nn.Module:
        """Returns untrained networks for one budget."""
        return CpqNetworks(config, task)

    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del budget, steps, generator
        actions: Tensor = networks.policy(obs)[:, 0]
        return actions
