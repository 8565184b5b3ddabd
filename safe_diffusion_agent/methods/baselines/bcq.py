"""BCQ (Fujimoto et al. 2019) with a price on cost: what the BCQ baselines have in common.

BCQ takes the best of several actions that a generative model of the data proposes and a small
network perturbs. Here "best" is by Q_r - lambda Q_c, where Q_r and Q_c are the values of reward and
cost of one and the same policy, and lambda is a price per state. As both are linear in what they
sum up, this is BCQ on the reward r - lambda c. The methods differ in where lambda comes from:
learned (BCQ-Lagrangian), a part of the state (BCORLE), or none, with the cost in the reward
(BCQ-Saute). With lambda = 0 it is plain BCQ, the method `bcq`: the best action that is like the
data's, at any cost, a line to compare returns with (Lin et al. 2023, Fig. 2).

The three networks are updated in one step, not one after the other as in the original code.
"""

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.networks import (
    ActionGenerator,
    Perturbation,
    TwinCritic,
    frozen,
    move_towards,
)
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.config import (
    QUICK_BCQ,
    QUICK_TRAINING,
    BcqConfig,
    TrainingConfig,
    critic_cost_discount,
)
from safe_diffusion_agent.methods.baselines.fitting import BaselineTraining


@dataclass(frozen=True, kw_only=True)
class BcqMethodConfig:
    """Settings of a method that is based on BCQ.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        bcq: Settings of BCQ.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bcq: BcqConfig = field(default_factory=BcqConfig)


QUICK: dict[str, Any] = {"preset": "quick", "training": QUICK_TRAINING, "bcq": QUICK_BCQ}
PRESETS = {"paper": BcqMethodConfig(preset="paper"), "quick": BcqMethodConfig(**QUICK)}


class BcqNetworks(nn.Module):
    """What acts: generator, perturbation, and critics of reward and (if priced) of cost.

    Args:
        training: Sizes.
        bcq: Settings.
        state_dim: S.
        act_dim: A.
        has_cost: Whether there is a critic of cost.
    """

    def __init__(
        self,
        training: TrainingConfig,
        bcq: BcqConfig,
        state_dim: int,
        act_dim: int,
        *,
        has_cost: bool = True,
    ):
        super().__init__()
        sizes = (state_dim, act_dim, training.width)
        self.generator = ActionGenerator(*sizes)
        self.perturbation = Perturbation(*sizes, bcq.perturbation)
        self.reward_critic = TwinCritic(*sizes)
        self.cost_critic = TwinCritic(*sizes) if has_cost else None

    def best_actions(
        self, states: Tensor, price: Tensor, num: int, generator: torch.Generator
    ) -> Tensor:
        """Returns the best of `num` perturbed actions per state (BCQ, Eq. 11).

        Args:
            states: `(N, S)`.
            price: lambda, `(N,)`.
            num: Actions to choose from.
            generator: Gives the latents.

        Returns:
            `(N, A)`.
        """
        proposed = self.generator.sample(states, num, generator)
        states = states[:, None].expand(-1, num, -1)
        actions: Tensor = self.perturbation(states, proposed)
        value = self.reward_critic(states, actions)[0]
        if self.cost_critic is not None:
            value = value - price[:, None] * self.cost_critic(states, actions).mean(dim=0)
        return actions[torch.arange(len(actions), device=actions.device), value.argmax(dim=1)]


def soft_minimum(values: Tensor, weight: float) -> Tensor:
    """Returns weight min + (1 - weight) max of twins (BCQ, Eq. 13), `(2, *)` to `(*,)`."""
    return weight * values.amin(dim=0) + (1.0 - weight) * values.amax(dim=0)


def critic_targets(
    training: "BcqTraining", batch: Batch, price: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Computes targets of the critics, with the best of several next actions (BCQ, Eq. 13).

    For cost the larger twin has the larger weight, as too low a cost is the dangerous error.

    Args:
        training: The networks, their targets and settings.
        batch: Transitions between states.
        price: lambda, `(N,)`, the same before and after the transition.
        generator: Gives the latents.

    Returns:
        Targets of reward and of cost `(N,)`, and the cost to come at the next states `(N,)`; the
        last two are None without a critic of cost.
    """
    config, bcq = training.config.training, training.config.bcq
    with torch.no_grad():
        num = bcq.num_target_actions
        proposed = training.networks.generator.sample(batch.next_obs, num, generator)
        states = batch.next_obs[:, None].expand(-1, num, -1)
        actions = training.targets.perturbation(states, proposed)
        reward_value = soft_minimum(training.targets.reward_critic(states, actions), bcq.min_weight)
        if training.targets.cost_critic is None:
            best = reward_value.amax(dim=1)
            return batch.rewards + config.discount * batch.continues * best, None, None
        cost_value = -soft_minimum(-training.targets.cost_critic(states, actions), bcq.min_weight)
        value = reward_value - price[:, None] * cost_value
        chosen = value.argmax(dim=1, keepdim=True)
        next_reward = reward_value.gather(1, chosen)[:, 0]
        next_cost = cost_value.gather(1, chosen)[:, 0]
        return (
            batch.rewards + config.discount * batch.continues * next_reward,
            batch.costs + training.cost_discount * batch.continues * next_cost,
            next_cost,
        )


def priced_losses(
    training: "BcqTraining", batch: Batch, price: Tensor, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Computes the losses of all networks; each reaches the parameters of its own network only.

    Returns:
        The losses by name, and the cost to come at the next states `(N,)`.
    """
    networks = training.networks
    reward_target, cost_target, next_cost = critic_targets(training, batch, price, generator)
    parts = {
        "generator": networks.generator.loss(
            batch.obs, batch.actions, training.config.bcq.kl_weight, generator
        ),
        "reward_critic": networks.reward_critic.loss(batch.obs, batch.actions, reward_target),
    }
    if networks.cost_critic is not None and cost_target is not None:
        parts["cost_critic"] = networks.cost_critic.loss(batch.obs, batch.actions, cost_target)
    parts["perturbation"] = _perturbation_loss(networks, batch.obs, price, generator)
    return parts, next_cost


def _perturbation_loss(
    networks: BcqNetworks, states: Tensor, price: Tensor, generator: torch.Generator
) -> Tensor:
    """Returns minus the value of perturbed actions (BCQ, Eq. 12)."""
    with torch.no_grad():
        proposed = networks.generator.sample(states, 1, generator)[:, 0]
    actions = networks.perturbation(states, proposed)
    with frozen(networks.reward_critic):
        value: Tensor = networks.reward_critic(states, actions)[0]
    if networks.cost_critic is not None:
        with frozen(networks.cost_critic):
            value = value - price * networks.cost_critic(states, actions).mean(dim=0)
    return -value.mean()


class BcqTraining(BaselineTraining):
    """Trains networks and their targets; the methods say what the price is.

    Args:
        networks: What is trained.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: BcqNetworks, config: BcqMethodConfig, task: Task):
        super().__init__(networks, config)
        self.task, self.cost_discount = task, task.cost_discount
        if networks.cost_critic is not None:
            self.cost_discount = critic_cost_discount(task, config.training)
        self.targets = copy.deepcopy(networks).requires_grad_(False)
        del self.targets.generator  # it has no target
        self.learning_rates = {
            "networks.generator": config.training.generator_learning_rate,
            "networks.perturbation": config.training.actor_learning_rate,
        }

    def priced(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """Returns a batch between states, and its prices `(N,)`; here observations, and none."""
        del generator
        return batch, torch.zeros_like(batch.rewards)

    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of a batch."""
        return priced_losses(self, *self.priced(batch, generator), generator)[0]

    def after_step(self) -> None:
        """Moves the target networks."""
        for name, target in self.targets.named_children():
            rate = self.config.training.target_rate
            move_towards(target, getattr(self.networks, name), rate)


class BcqAgent(BaselineAgent):
    """BCQ on the reward alone; other methods change states, price and networks."""

    method: ClassVar[str] = "bcq"
    config_class: ClassVar[Any] = BcqMethodConfig
    training_class: ClassVar[Any] = BcqTraining
    changeable: ClassVar[tuple[str, ...]] = ("num_actions",)
    unread: ClassVar[tuple[str, ...]] = ("cost_discount",)  # it has no critic of cost
    extra_dims: ClassVar[int] = 0  # of a state, beside the observation
    has_cost: ClassVar[bool] = False
    config: Any

    @classmethod
    def build(cls, config: Any, task: Task) -> nn.Module:
        """Returns untrained networks."""
        dims = (task.obs_dim + cls.extra_dims, task.act_dim)
        return BcqNetworks(config.training, config.bcq, *dims, has_cost=cls.has_cost)

    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        states, price = self._states(networks, obs, budget)
        num = self.config.bcq.num_actions
        actions: Tensor = networks.best_actions(states, price, num, generator)
        return actions

    def _states(self, networks: Any, obs: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states `(n, S)` and prices `(n,)`."""
        del networks
        return obs, torch.zeros_like(budget)
