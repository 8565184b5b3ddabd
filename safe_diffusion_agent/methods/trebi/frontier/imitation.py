"""Trains the frontier critic without models: for each price of cost, from the best of the episodes.

At the price m, an episode of return R and cost C counts in proportion to

    exp((R - m C) / (temperature x standard deviation of R - m C over the episodes)),

as in exponentially weighted imitation (Wang et al. 2018), with one network for all prices. The
actor maximizes the likelihood of those episodes' actions, the values are regressed on what they
went on to return and cost. Whole episodes are weighted, and not steps by their advantage: where the
data are of many policies, an actor that imitates the best step of every state goes on with the
policy that it is near to, and does not get from a slow gait into a fast one.

Nothing is put together that no episode did. Where the models are good, branches do that.
"""

import copy

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, discounted_sums
from safe_diffusion_agent.learning.networks import move_towards
from safe_diffusion_agent.learning.training import Training
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.config import FrontierConfig
from safe_diffusion_agent.methods.trebi.frontier.critic import (
    FrontierCritic,
    random_multipliers,
    targets,
)

NUM_PRICES = 16  # in a batch
TEMPERATURE = 0.5
FLOOR = 0.02  # share of the steps that are drawn from all episodes alike
VALUE_WEIGHT = 10.0
MAX_PIECE = 200  # steps of an episode that are counted as recorded; the target knows the rest


class ImitationTraining(Training):
    """Trains the critic by imitation of the episodes that were best at each price.

    Args:
        networks: The critic.
        transitions: The data.
        episodes: The same data.
        config: Settings.
    """

    loss_weights = {"critic": VALUE_WEIGHT}

    def __init__(
        self,
        networks: FrontierCritic,
        transitions: Transitions,
        episodes: Episodes,
        config: FrontierConfig,
    ):
        super().__init__(networks)
        networks.imitates.fill_(1.0)
        self.target = copy.deepcopy(networks).requires_grad_(False)
        self.transitions, self.config = transitions, config
        device = transitions.episode.device
        self.first = torch.tensor(episodes.first_steps, device=device)
        self.lengths = torch.tensor(episodes.lengths, device=device)
        self.returns, self.costs = (
            torch.tensor(
                discounted_sums(values, episodes.lengths, gamma), dtype=torch.float32, device=device
            )
            for values, gamma in (
                (episodes.rewards, networks.discount),
                (episodes.costs, networks.cost_discount),
            )
        )

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one batch: of several prices, as many steps for each."""
        critic, size = self.networks, max(1, self.config.critic_batch_size // NUM_PRICES)
        prices = random_multipliers(NUM_PRICES, generator)
        weights = self._weights(prices)
        episodes = torch.multinomial(weights, size, replacement=True, generator=generator).flatten()
        multipliers = prices.repeat_interleave(size)
        uniform = torch.rand(
            3, len(episodes), generator=generator, device=generator.device, dtype=torch.float64
        )
        starts = self.first[episodes] + (uniform[0] * self.lengths[episodes]).long()
        steps_left = 1.0 + (uniform[1] * critic.max_steps).floor().to(torch.float32)
        num_steps = 1.0 + (uniform[2] * MAX_PIECE).floor().to(torch.float32)
        with torch.no_grad():
            target = self.transitions.n_step(
                starts,
                torch.minimum(num_steps, steps_left),
                MAX_PIECE,
                discount=critic.discount,
                cost_discount=critic.cost_discount,
            )
            returns, costs = targets(self.target, target, steps_left, multipliers)
        predicted = critic(target.obs, steps_left, multipliers)
        steps = steps_left.long()
        most = critic.sum_of_ones[-1] / critic.sum_of_ones[steps]
        errors = (
            (returns - predicted[0]) / critic.return_scale * most,
            (costs - predicted[1]) / (critic.cost_scale * critic.cost_shares[steps]),
        )
        value = (errors[0] ** 2 + errors[1] ** 2).mean()
        likelihood = critic.log_likelihood(target.obs, steps_left, multipliers, target.actions)
        return {"critic": value, "actor": -likelihood.mean()}

    def after_step(self) -> None:
        """Moves the target towards the critic."""
        move_towards(self.target, self.networks, self.config.target_rate)

    def _weights(self, prices: Tensor) -> Tensor:
        """Returns how often to draw each of E episodes for each of P prices, `(P, E)`."""
        of_price = prices[:, None] * self.networks.multiplier_unit()
        score = self.returns - of_price * self.costs
        spread = score.std(dim=1, keepdim=True).clamp_min(1e-6)
        weights = torch.softmax(score / (TEMPERATURE * spread), dim=1)
        share = self.lengths / self.lengths.sum()
        weights = weights * share / (weights * share).sum(dim=1, keepdim=True)
        return weights + FLOOR * share
