"""The BCQ family against hand-computed values."""

import numpy as np
import pytest
import torch
from baseline_cases import answers, batch, task

from safe_diffusion_agent.learning.networks import ActionGenerator, frozen, latent_divergence
from safe_diffusion_agent.methods.baselines.bcorle import bisect, with_price
from safe_diffusion_agent.methods.baselines.bcq import (
    BcqAgent,
    BcqMethodConfig,
    BcqNetworks,
    BcqTraining,
    critic_targets,
    priced_losses,
    soft_minimum,
)
from safe_diffusion_agent.methods.baselines.bcq_lagrangian import PRESETS as LAGRANGIAN
from safe_diffusion_agent.methods.baselines.bcq_lagrangian import (
    BcqLagrangianNetworks,
    BcqLagrangianTraining,
)
from safe_diffusion_agent.methods.baselines.bcq_saute import saute_reward, with_budget
from safe_diffusion_agent.methods.baselines.config import BcqConfig, TrainingConfig
from safe_diffusion_agent.settings import override

CONFIG = TrainingConfig(width=8, discount=0.9, cost_discount=0.8)


def training(has_cost=True, **bcq) -> BcqTraining:
    torch.manual_seed(0)
    config = BcqMethodConfig(training=CONFIG, bcq=BcqConfig(num_target_actions=5, **bcq))
    networks = BcqNetworks(CONFIG, config.bcq, 1, 1, has_cost=has_cost)
    return BcqTraining(networks, config, task())


def priced(price=0.5):
    return batch(), torch.full((2,), price)


def test_soft_minimum_by_hand():
    values = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
    assert soft_minimum(values, 0.75).tolist() == [1.5, 2.75]


def test_divergence_is_the_one_of_two_normals():
    mean, log_std = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.7]])
    ours = latent_divergence(mean, log_std)[0]
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs.mean())


def test_targets_follow_the_action_that_is_best_at_its_price():
    """Q_r = 10 a, Q_c = 4 a: at a price below 2.5 the largest proposed action is taken."""
    for price, takes_largest in ((1.0, True), (3.0, False)):
        model = training()
        answers(model.targets.reward_critic, [lambda a: 10 * a, lambda a: 10 * a])
        answers(model.targets.cost_critic, [lambda a: 4 * a, lambda a: 4 * a])
        generator = torch.Generator().manual_seed(1)
        reward, cost, next_cost = critic_targets(model, *priced(price), generator)
        generator = torch.Generator().manual_seed(1)
        proposed = model.networks.generator.sample(torch.ones(2, 1), 5, generator)
        states = torch.ones(2, 5, 1)
        actions = model.targets.perturbation(states, proposed)[..., 0]
        best = actions.amax(1) if takes_largest else actions.amin(1)
        torch.testing.assert_close(reward, 1.0 + torch.tensor([0.9, 0.0]) * 10 * best)
        torch.testing.assert_close(
            cost, torch.tensor([2.0, 3.0]) + torch.tensor([0.8, 0]) * 4 * best
        )
        torch.testing.assert_close(next_cost, 4 * best)


def test_without_a_critic_of_cost_targets_are_those_of_bcq():
    model = training(has_cost=False)
    answers(model.targets.reward_critic, [lambda a: 2 * a, lambda a: 0 * a + 7.0])
    generator = torch.Generator().manual_seed(1)
    reward, cost, _ = critic_targets(model, *priced(0.0), generator)
    generator = torch.Generator().manual_seed(1)
    proposed = model.networks.generator.sample(torch.ones(2, 1), 5, generator)
    actions = model.targets.perturbation(torch.ones(2, 5, 1), proposed)[..., 0]
    value = 0.75 * (2 * actions) + 0.25 * 7.0
    torch.testing.assert_close(reward, 1.0 + torch.tensor([0.9, 0.0]) * value.amax(1))
    assert cost is None


def test_plain_bcq_has_no_price_and_no_critic_of_cost():
    model = training(has_cost=False)
    assert BcqAgent.build(model.config, task()).cost_critic is None
    _, price = model.priced(batch(), torch.Generator())
    assert price.tolist() == [0.0, 0.0]
    losses = model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert losses.keys() == {"generator", "reward_critic", "perturbation"}


@pytest.mark.parametrize("has_cost", [True, False])
def test_every_loss_reaches_its_own_network_only(has_cost):
    model = training(has_cost)
    losses, _ = priced_losses(model, *priced(), torch.Generator().manual_seed(0))
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        touched = {
            parameter_name.split(".")[1]
            for parameter_name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
        assert touched == {name}


def test_frozen_lets_gradients_pass():
    layer = torch.nn.Linear(1, 1)
    x = torch.ones(1, 1, requires_grad=True)
    with frozen(layer):
        layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None and layer.weight.requires_grad


def test_perturbed_actions_stay_near_what_was_proposed():
    model = training(perturbation=0.1)
    states, actions = torch.randn(50, 1), torch.rand(50, 1) * 2 - 1
    perturbed = model.networks.perturbation(states, actions)
    assert (perturbed - actions).abs().max() <= 0.1 + 1e-6 and perturbed.abs().max() <= 1.0


def test_the_generator_learns_two_modes():
    """Actions are 0.6 or -0.6, whatever the state: samples lie near them, on both sides."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = ActionGenerator(1, 1, 64)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(500):
        actions = 0.6 * torch.randint(0, 2, (256, 1), generator=generator).float() * 2 - 0.6
        loss = model.loss(torch.zeros(256, 1), actions, 0.01, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = model.sample(torch.zeros(1, 1), 500, generator).flatten().detach()
    assert 0.2 < (samples > 0).float().mean() < 0.8
    assert samples.abs().max() < 0.75


def test_the_learned_price_follows_the_overrun():
    config = override(
        LAGRANGIAN["quick"], {"width": 8, "ratios": (0.4,), "price_learning_rate": 0.1}
    )
    model = BcqLagrangianTraining(BcqLagrangianNetworks(config, task()), config, task())
    discounted = 4.0 * (1 - 0.99**10) / (1 - 0.99) / 10  # budget 0.4 * 10 over 10 steps
    assert model.budget == pytest.approx(discounted, rel=1e-5)
    answers(model.targets.cost_critic, [lambda a: 0 * a + 6.0] * 2)
    model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert model.networks.price.item() == pytest.approx(0.1 * (6.0 - discounted), rel=1e-4)
    answers(model.targets.cost_critic, [lambda a: 0 * a] * 2)
    for _ in range(3):
        model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert model.networks.price.item() == 0.0


def test_bisection_finds_the_smallest_price_that_keeps_the_budget():
    """cost(price) = 10 / (1 + price): the budget b needs the price 10 / b - 1."""
    budget = torch.tensor([2.0, 5.0, 20.0, 0.1])

    def act(price):
        return price[:, None], 10.0 / (1.0 + price)

    prices = bisect(act, budget, 20.0, 30)[:, 0]
    np.testing.assert_allclose(prices, [4.0, 1.0, 0.0, 20.0], atol=1e-4)


def test_states_hold_price_and_budget():
    obs = torch.zeros(2, 1)
    assert with_price(obs, torch.tensor([5.0, 20.0]), 20.0)[:, 1].tolist() == [0.25, 1.0]
    budgets = torch.tensor([-30.0, torch.inf])
    assert with_budget(obs, budgets, 10.0)[:, 1].tolist() == [-1.0, 1.0]


def test_saute_punishes_what_ends_over_budget():
    reward = saute_reward(torch.ones(3), torch.tensor([0.0, -0.1, 2.0]), 1000.0)
    assert reward.tolist() == [1.0, -1000.0, 1.0]
