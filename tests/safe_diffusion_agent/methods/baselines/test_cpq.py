"""CPQ against hand-computed values of its operator, its dual and its policy loss."""

import pytest
import torch
from baseline_cases import answers, batch, task

from safe_diffusion_agent.methods.baselines.cpq import PRESETS, CpqNetworks, CpqTraining, penalized
from safe_diffusion_agent.settings import override


def training(**settings) -> CpqTraining:
    torch.manual_seed(0)
    config = override(PRESETS["quick"], {"width": 8, "ratios": (0.4,), **settings})
    return CpqTraining(CpqNetworks(config, task()), config, task())


def test_values_pass_through_safe_actions_only():
    cost = torch.tensor([1.0, 2.0, 2.1])
    assert penalized(torch.tensor([5.0, 6.0, 7.0]), cost, 2.0).tolist() == [5.0, 6.0, 0.0]


@pytest.mark.parametrize(("next_cost", "passes"), [(1.0, True), (6.0, False)])
def test_targets_by_hand(next_cost, passes):
    model = training()
    answers(model.cost_target, [lambda a: 0 * a + next_cost, lambda a: 0 * a])
    answers(model.reward_target, [lambda a: 0 * a + 9.0, lambda a: 0 * a + 8.0])
    for critic in (model.networks.reward_critic, model.networks.cost_critic):
        answers(critic, [lambda a: 0 * a, lambda a: 0 * a])
    losses = model.batch_losses(batch(), torch.Generator().manual_seed(0))
    # each twin: mean of squares of the targets; the second transition terminates
    reward = (1.0 + passes * 0.99 * 8.0) ** 2 + 1.0
    cost = (2.0 + 0.99 * next_cost) ** 2 + 9.0
    assert losses["reward_critic"].item() == pytest.approx(reward, rel=1e-5)
    assert losses["cost_critic"].item() == pytest.approx(cost, rel=1e-5)


def test_the_multiplier_pushes_the_cost_of_unlike_actions_up_to_the_budget():
    model = training(multiplier_learning_rate=0.1)
    model.cost_of_unlike_actions = lambda *_: torch.tensor(1.0)
    model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert model.multiplier.item() == pytest.approx(0.1 * (model.budget - 1.0), rel=1e-5)
    model.cost_of_unlike_actions = lambda *_: torch.tensor(model.budget + 100.0)
    model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert model.multiplier.item() == 0.0


def test_only_actions_unlike_the_data_are_pushed():
    """Here the encoder's mean is the action itself; the data's actions are 0, the policy's not."""
    model = training(num_ood_actions=2)
    networks = model.networks
    networks.generator.encode = lambda states, actions: (actions, torch.zeros_like(actions))
    networks.policy.sample = lambda states, num, generator: torch.tensor(
        [[[0.0], [0.5]], [[0.0], [1.0]]]
    )
    answers(networks.cost_critic, [lambda a: a, lambda a: 3 * a])
    pushed = model.cost_of_unlike_actions(batch(), torch.Generator())
    assert pushed.item() == pytest.approx((0.5 + 1.0 + 1.5 + 3.0) / 4)
    networks.policy.sample = lambda states, num, generator: torch.zeros(2, 2, 1)
    assert model.cost_of_unlike_actions(batch(), torch.Generator()) == model.budget


def test_every_loss_reaches_its_own_network_only():
    model = training()
    model.multiplier.fill_(1.0)
    answers_before = model.batch_losses(batch(), torch.Generator().manual_seed(0))
    for name, loss in answers_before.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        touched = {
            parameter_name.split(".")[1]
            for parameter_name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
        assert touched <= {name}


def test_the_policy_gets_no_credit_for_unsafe_actions():
    model = training()
    answers(model.networks.reward_critic, [lambda a: a + 5.0, lambda a: a + 5.0])
    answers(model.networks.cost_critic, [lambda a: 0 * a + 100.0] * 2)
    losses = model.batch_losses(batch(), torch.Generator().manual_seed(0))
    assert losses["policy"].item() == 0.0
