"""CAPS and IQL against hand-computed values and a problem that is solved exactly."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from baseline_cases import answers, batch, task

from safe_diffusion_agent.learning.transitions import UnitNormalizer
from safe_diffusion_agent.methods.baselines.caps import (
    PRESETS,
    CapsAgent,
    CapsConfig,
    CapsNetworks,
    CapsTraining,
    expectile_loss,
    switch,
)
from safe_diffusion_agent.methods.baselines.fitting import fit
from safe_diffusion_agent.settings import from_json, override


def test_switch_takes_the_most_reward_that_is_allowed_else_the_least_cost():
    reward = torch.tensor([[5.0, 1.0], [5.0, 1.0], [1.0, 5.0], [5.0, 1.0]])
    cost = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 2.0], [3.0, 2.0]])
    budget = torch.tensor([4.0, 2.0, torch.inf, 0.0])
    assert switch(reward, cost, budget).tolist() == [0, 1, 1, 1]


def test_expectile_loss_by_hand():
    advantage = torch.tensor([2.0, -1.0])
    # (0.7 * 4 + 0.3 * 1) / 2
    assert abs(expectile_loss(advantage, 0.7).item() - 1.55) < 1e-6


def test_the_minimiser_of_the_expectile_loss_is_the_expectile():
    values = torch.tensor([0.0, 1.0, 5.0])
    grid = torch.linspace(0, 5, 5001)
    best = grid[torch.stack([expectile_loss(values - v, 0.9) for v in grid]).argmin()].item()
    # tau E[(x - v)_+] = (1 - tau) E[(v - x)_+]
    above, below = (values - best).clamp_min(0).mean(), (best - values).clamp_min(0).mean()
    assert abs(0.9 * above - 0.1 * below) < 1e-3


def constant(network, value):
    """Makes a network answer one value."""
    for parameter in network.parameters():
        parameter.data.zero_()
    list(network.parameters())[-1].data.fill_(value)


def test_losses_by_hand():
    config = override(PRESETS["quick"], {"width": 4, "expectile": 0.7, "cost_expectile": 0.8})
    training = CapsTraining(CapsNetworks(1, 1, 4), config, task())
    networks = training.networks
    for twins, values in (
        (training.reward_target, (3.0, 4.0)), (training.cost_target, (5.0, 6.0)),
        (networks.reward_critic, (1.0, 1.0)), (networks.cost_critic, (1.0, 1.0)),
    ):  # fmt: skip
        for network, value in zip(twins.networks, values, strict=True):
            constant(network, value)
    constant(training.reward_value, 2.0)
    constant(training.cost_value, 7.0)
    for parameter in networks.policy.parameters():
        parameter.data.zero_()
    losses = training.batch_losses(batch(), torch.Generator())
    # advantage: min(3, 4) - 2 = 1; saving: 7 - max(5, 6) = 1
    assert abs(losses["reward_value"].item() - 0.7) < 1e-6
    assert abs(losses["cost_value"].item() - 0.8) < 1e-6
    # targets: 0.1 + 0.99 * 2 and 0.1; 2 + 0.99 * 7 and 3. Twins answer 1 each.
    reward = ((1 - 2.08) ** 2 + (1 - 0.1) ** 2) / 2 * 2
    cost = ((1 - 8.93) ** 2 + (1 - 3.0) ** 2) / 2 * 2
    assert abs(losses["reward_critic"].item() - reward) < 1e-5
    assert abs(losses["cost_critic"].item() - cost) < 1e-4
    # both heads weigh exp(3 * 1); the density of a standard normal at its mean
    policy = np.exp(3.0) * 0.5 * np.log(2 * np.pi)
    assert abs(losses["policy"].item() - policy) < 1e-4


@pytest.mark.parametrize(("ends", "cost_target"), [(True, 3.0), (False, 3.0 + 0.99 * 7.0)])
def test_values_end_at_a_time_limit_or_go_on(ends, cost_target):
    config = override(PRESETS["quick"], {"width": 4, "time_limit_ends": ends})
    training = CapsTraining(CapsNetworks(1, 1, 4), config, task())
    constant(training.cost_value, 7.0)
    for network in training.networks.cost_critic.networks:
        constant(network, 1.0)
    cut = batch(continues=torch.ones(2))  # the second transition is the last one, by the time limit
    loss = training.batch_losses(cut, torch.Generator())["cost_critic"].item()
    # the first goes on in both cases: 2 + 0.99 * 7. Twins answer 1 each.
    assert abs(loss - ((1 - 8.93) ** 2 + (1 - cost_target) ** 2)) < 1e-4


@pytest.mark.parametrize("learned", [True, False])
def test_standard_deviations_stay_one_unless_they_are_learned(tiny_episodes, learned):
    config = override(PRESETS["quick"], {"num_steps": 3, "width": 4, "learned_std": learned})
    agent, _ = fit(CapsAgent, tiny_episodes, config, device="cpu")
    assert bool((agent.networks.policy.log_std != 0.0).all()) is learned
    assert bool((agent.networks.policy.log_std == 0.0).all()) is not learned


def test_more_steps_make_a_budget_stricter():
    """A head that costs 9: a budget of 10 for 5 steps allows it, but not if they are 30."""
    networks = CapsNetworks(1, 1, 4)
    for head, action in zip(networks.policy.means, (1.0, -1.0), strict=True):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 9.0 * action)
    answers(networks.reward_critic, [lambda a: a] * 2)
    answers(networks.cost_critic, [lambda a: 8.0 + a] * 2)
    # 10 (1 - 0.99^5) / (1 - 0.99) / 5 = 9.80 > 9; with 30 steps 8.68: the other head, which costs 7
    normalizer = UnitNormalizer(*(torch.tensor([x]) for x in (0.0, 1.0, 0.0, 1.0)))
    for extra, chosen in ((0, 1.0), (25, -1.0)):
        config = override(PRESETS["quick"], {"width": 4, "extra_steps": extra})
        agent = CapsAgent(networks, normalizer, config, task(), device="cpu")
        assert abs(agent.act(np.zeros(1), 10.0, 5)[0] - chosen) < 1e-6


WIDE = replace(task(), action_low=(-2.0,), action_high=(2.0,))


@pytest.mark.parametrize(("preset", "action"), [("paper", 1.0), ("quick", 0.5)])
def test_losses_see_raw_actions_or_scaled_ones(preset, action):
    """Of [-2, 2], a quarter from the top is 1 in its own units, and 0.5 if it is scaled."""
    config = override(PRESETS[preset], {"width": 4, "expectile": 0.7})
    training = CapsTraining(CapsNetworks(1, 1, 4), config, WIDE)
    networks = training.networks
    for parameter in networks.policy.parameters():
        parameter.data.zero_()
    constant(training.reward_value, 0.0)
    constant(training.cost_value, 0.0)
    answers(training.reward_target, [lambda a: a] * 2)
    answers(training.cost_target, [lambda a: a] * 2)
    for critic in (networks.reward_critic, networks.cost_critic):
        answers(critic, [lambda a: a] * 2)
    given = batch(actions=torch.full((2, 1), 0.5), is_last=torch.zeros(2))
    losses = training.batch_losses(given, torch.Generator())
    assert abs(losses["reward_value"].item() - 0.7 * action**2) < 1e-6
    # values of 0: the targets are the rewards, 0.1 each, and the costs 2 and 3; twins answer alike
    assert abs(losses["reward_critic"].item() - 2 * (action - 0.1) ** 2) < 1e-6
    cost = (action - 2.0) ** 2 + (action - 3.0) ** 2
    assert abs(losses["cost_critic"].item() - cost) < 1e-5
    # the heads weigh exp(3 a) and exp(-3 a); a standard normal's density at a
    weight = (np.exp(3 * action) + np.exp(-3 * action)) / 2
    policy = weight * (action**2 / 2 + 0.5 * np.log(2 * np.pi))
    assert abs(losses["policy"].item() - policy) < 1e-4


@pytest.mark.parametrize(("preset", "chosen"), [("paper", -1.8), ("quick", 1.8)])
def test_the_switch_asks_the_critics_in_the_units_that_they_have_learned(preset, chosen):
    """Means of 0.9 and -0.9 act 1.8 and -1.8; a cost of 8.5 + a is 10.3 raw and 9.4 scaled."""
    networks = CapsNetworks(1, 1, 4)
    for head, mean in zip(networks.policy.means, (0.9, -0.9), strict=True):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, np.arctanh(mean))
    answers(networks.reward_critic, [lambda a: a] * 2)
    answers(networks.cost_critic, [lambda a: 8.5 + a] * 2)
    normalizer = UnitNormalizer(*(torch.tensor([x]) for x in (0.0, 1.0, 0.0, 2.0)))
    config = override(PRESETS[preset], {"width": 4})
    agent = CapsAgent(networks, normalizer, config, WIDE, device="cpu")
    # 10 (1 - 0.99^5) / (1 - 0.99) / 5 = 9.80
    assert abs(agent.act(np.zeros(1), 10.0, 5)[0] - chosen) < 1e-6


@pytest.mark.parametrize(("raw", "acted"), [(True, 1.0), (False, 0.5)])
def test_raw_actions_are_multiplied_by_the_largest_after_they_were_learned(
    tiny_episodes, raw, acted
):
    """The data do 0.5 of at most 2: raw, the mean learned is 0.5, and the action twice that."""
    same = replace(tiny_episodes, actions=np.full_like(tiny_episodes.actions, 0.5))
    assert same.action_high == [2.0]
    settings = {"num_steps": 300, "width": 16, "actor_learning_rate": 1e-2, "raw_actions": raw}
    agent, _ = fit(CapsAgent, same, override(PRESETS["quick"], settings), device="cpu")
    actions = agent.act(same.observations[:20], np.full(20, np.inf), 10)
    np.testing.assert_allclose(actions, acted, atol=0.05)


@pytest.mark.parametrize("raw", [True, False])
def test_networks_see_raw_observations_or_normalized_ones(tiny_episodes, raw, monkeypatch):
    seen, losses = [], CapsTraining.batch_losses

    def watched(self, given, generator):
        seen.append(given.obs)
        return losses(self, given, generator)

    monkeypatch.setattr(CapsTraining, "batch_losses", watched)
    settings = {"num_steps": 1, "width": 4, "batch_size": 16, "raw_observations": raw}
    agent, _ = fit(CapsAgent, tiny_episodes, override(PRESETS["quick"], settings), device="cpu")
    recorded = tiny_episodes.observations.astype(np.float64)
    if not raw:
        recorded = (recorded - recorded.mean(axis=0)) / recorded.std(axis=0)
    distances = np.abs(seen[0].double().numpy()[:, None] - recorded).max(axis=2).min(axis=1)
    assert distances.max() < 1e-5
    # and to act: both heads, by hand, from the trained weights
    weights = {k: v.double().numpy() for k, v in agent.networks.policy.state_dict().items()}
    features = recorded[7]
    for layer in ("trunk.0.0", "trunk.0.2"):
        linear = weights[f"{layer}.weight"] @ features + weights[f"{layer}.bias"]
        features = np.maximum(linear, 0.0)
    heads = [
        2.0 * np.tanh(weights[f"means.{k}.weight"] @ features + weights[f"means.{k}.bias"])
        for k in range(2)
    ]
    acted = agent.act(tiny_episodes.observations[7], np.inf, 10)
    assert np.abs(np.array(heads) - acted).min() < 1e-5


def test_presets_and_agents_of_before_say_what_is_raw():
    paper, quick = PRESETS["paper"], PRESETS["quick"]
    assert paper.raw_observations and paper.raw_actions
    assert not (quick.raw_observations or quick.raw_actions)
    before = asdict(paper)
    del before["raw_observations"], before["raw_actions"]
    assert from_json(CapsConfig, before) == replace(
        paper, raw_observations=False, raw_actions=False
    )


def test_the_heads_separate_on_a_bandit(tiny_episodes):
    """Data in which the action a costs a and pays a: one head goes up, the other down."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-2.0, 2.0, (600, 1)).astype(np.float32)
    bandit = replace(
        tiny_episodes, observations=np.zeros((1200, 3), np.float32), actions=actions,
        rewards=actions[:, 0] + 2.0, costs=actions[:, 0] + 2.0, lengths=np.ones(600, np.int64),
        terminated=np.ones(600, bool),
    )  # fmt: skip
    config = override(
        PRESETS["quick"],
        {"num_steps": 600, "width": 32, "reward_scale": 1.0, "actor_learning_rate": 3e-3,
         "critic_learning_rate": 3e-3},
    )  # fmt: skip
    agent, _ = fit(CapsAgent, bandit, config, device="cpu")
    rich, poor = agent.act(np.zeros((2, 3)), [np.inf, 0.0], 1)[:, 0]
    assert rich > 1.0 and poor < -1.0
