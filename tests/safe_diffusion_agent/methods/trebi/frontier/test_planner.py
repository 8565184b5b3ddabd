import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import EpisodeRecorder
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.experiments.inspection import facts
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition
from safe_diffusion_agent.learning.transitions import Pieces
from safe_diffusion_agent.methods.trebi.calibration import Calibration, conformal_quantile
from safe_diffusion_agent.methods.trebi.diffusion import Schedule
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.frontier import fit as frontier_fit
from safe_diffusion_agent.methods.trebi.frontier.branches import Brancher
from safe_diffusion_agent.methods.trebi.frontier.calibration import (
    imagined_overspend,
    spread_budgets,
)
from safe_diffusion_agent.methods.trebi.frontier.critic import (
    MULTIPLIERS,
    FrontierCritic,
    discounted_steps,
    random_multipliers,
)
from safe_diffusion_agent.methods.trebi.frontier.critic_fit import (
    CriticLoss,
    CriticTraining,
    Imagination,
    advantage_weights,
)
from safe_diffusion_agent.methods.trebi.frontier.planner import best_single_return, most_return
from safe_diffusion_agent.methods.trebi.frontier_config import FrontierConfig
from safe_diffusion_agent.methods.trebi.presets import preset_config

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)
QUICKLY = {
    "num_steps": 30, "batch_size": 32, "model_steps": 40, "critic_steps": 30,
    "critic_batch_size": 32, "num_branches": 60, "branch_interval": 10,
    "calibration_episodes": 20, "horizon": 8, "num_candidates": 4, "risk": 0.1,
    "min_branch_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def frontier_agent(tiny_episodes):
    config = preset_config("frontier", "safe/Pendulum-v0", **QUICKLY)
    return fit(tiny_episodes, config, seed=0)[0]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_dual_bound_is_the_best_mixture_that_fits(seed, share):
    """Against a linear program over mixtures of behaviors (Lagrangian duality)."""
    rng = np.random.default_rng(seed)
    costs, returns = rng.uniform(0, 10, 30), rng.uniform(0, 100, 30)
    budget = costs.min() + share * (costs.max() - costs.min()) + 1e-6
    program = linprog(
        -returns, A_ub=[costs], b_ub=[budget], A_eq=[np.ones(30)], b_eq=[1.0], bounds=(0, 1)
    )
    multipliers = np.concatenate([[0.0], np.geomspace(1e-3, 1e7, 20_000)])
    best = np.argmax(returns - multipliers[:, None] * costs, axis=1)
    bound, least = most_return(
        *(torch.tensor(values[best])[None] for values in (returns, costs)),
        torch.tensor([budget]),
        torch.tensor(multipliers),
    )
    assert float(bound) == pytest.approx(-program.fun, rel=2e-3, abs=0.05)
    assert float(least) == costs.min()
    single, _ = best_single_return(
        *(torch.tensor(values[best])[None] for values in (returns, costs)),
        torch.tensor([budget]),
        torch.tensor(multipliers),
    )
    assert float(single) <= float(bound) + 1e-9


def test_without_a_budget_only_the_return_counts():
    returns, costs = torch.tensor([[9.0, 5.0, 1.0]]), torch.tensor([[7.0, 3.0, 0.0]])
    bound, _ = most_return(returns, costs, torch.tensor([math.inf]), torch.tensor([0.0, 1.0, 10.0]))
    assert float(bound) == 9.0


def test_critic_is_bounded_and_ends_at_zero():
    critic = FrontierCritic(2, 1, 16, 50, 0.9, 0.9)
    critic.reward_low.fill_(-1.0)
    critic.reward_high.fill_(3.0)
    obs, multipliers = 10 * torch.randn(200, 2), torch.rand(200)
    steps = torch.arange(200) % 51 * 1.0
    returns, costs = critic(obs, steps, multipliers)
    weight = torch.tensor([sum(0.9**i for i in range(int(k))) for k in steps])
    torch.testing.assert_close(discounted_steps(steps, 0.9), weight)
    assert (returns <= 3.08 * weight + 1e-5).all() and (returns >= -1.08 * weight - 1e-5).all()
    assert (costs >= 0).all() and (returns[0], costs[0]) == (0, 0)


class Shop(DynamicsEnsemble):
    """Spending a in [0, 1] costs a and returns a: buy all where the price is below 1, else none."""

    def __init__(self):
        super().__init__(1, 1, 4, 1)
        self.trusted_steps.fill_(4)

    def step(self, obs, actions, members=None):
        spent = actions[:, 0]
        return Transition(torch.zeros_like(obs), spent, spent, torch.ones(len(obs)))


def test_critic_learns_the_frontier_of_a_shop(tiny_episodes):
    """With k steps left the frontier is return = cost, from 0 to k; the price 1 divides it."""
    torch.manual_seed(0)
    num = 400
    pieces = object.__new__(Pieces)  # single steps of random spending
    pieces.discount = pieces.cost_discount = 1.0
    pieces.obs = pieces.next_obs = torch.zeros(num, 1)
    pieces.actions = torch.rand(num, 1)
    pieces.rewards = pieces.costs = pieces.actions[:, 0].clone()
    pieces.terminated = torch.zeros(num)
    pieces._last_step = torch.arange(num)
    critic = FrontierCritic(1, 1, 64, 10, 1.0, 1.0)
    critic.reward_low.fill_(0.0)
    critic.return_scale.fill_(3.0)
    critic.cost_scale.fill_(3.0)
    critic.action_high.fill_(1.0)
    config = FrontierConfig(
        critic_batch_size=128, num_branches=300, branch_interval=300, target_rate=0.01
    )
    imagination = Imagination(
        dynamics=Shop(), denoiser=lambda x, i: torch.rand_like(x), schedule=Schedule.cosine(2),
        horizon=4, num_steps=4,
    )  # fmt: skip
    loss, training = CriticLoss(pieces, imagination, config), CriticTraining(critic)
    optimizer = torch.optim.Adam(training.critic.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        value, _ = loss(training, generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            loss.after_step(training)
    steps = torch.tensor([10.0, 10.0, 4.0, 4.0])
    prices = torch.tensor([0.01, 5.0, 0.01, 5.0])
    returns, costs = critic(torch.zeros(4, 1), steps, prices)
    assert returns.tolist() == pytest.approx([10, 0, 4, 0], abs=1.5)
    assert costs.tolist() == pytest.approx([10, 0, 4, 0], abs=1.5)
    actions = critic.act(torch.zeros(4, 1), steps, prices)[:, 0]
    assert actions.tolist() == pytest.approx([1, 0, 1, 0], abs=0.2)


def test_random_plans_and_multipliers_stay_in_range():
    critic = FrontierCritic(1, 2, 8, 20, 1.0, 1.0)
    critic.action_low.copy_(torch.tensor([-1.0, 0.0]))
    critic.action_high.copy_(torch.tensor([1.0, 5.0]))
    generator = torch.Generator().manual_seed(0)
    plans = Brancher(Shop(), critic, 4, generator).random_plans(500, 12)
    assert plans.shape == (500, 12, 2)
    assert (plans >= critic.action_low).all() and (plans <= critic.action_high).all()
    kept = (plans[:, 1:] == plans[:, :-1]).all(dim=2).float().mean()
    assert 0.5 < float(kept) < 0.85, "actions are kept for some steps"
    multipliers = random_multipliers(12_000, generator)
    assert float((multipliers == 0).float().mean()) == pytest.approx(1 / 12, abs=0.01)
    assert multipliers.max() <= max(MULTIPLIERS) and multipliers[multipliers > 0].min() > 0.002


def test_advantage_weights_prefer_the_better():
    weights = advantage_weights(torch.linspace(-1, 1, 101))
    assert float(weights.mean()) == pytest.approx(1.0)
    assert (weights[1:] >= weights[:-1]).all() and weights[-1] > 5 * weights[0]


def test_conformal_quantile_holds_its_promise():
    """Over many draws, a new score exceeds the quantile in at most a share `risk` of them."""
    rng = torch.Generator().manual_seed(0)
    for risk in (0.05, 0.2):
        scores = torch.randn(4_000, 60, generator=rng).exp()
        new = torch.randn(4_000, generator=rng).exp()
        limits = torch.tensor([conformal_quantile(row, risk) for row in scores])
        share = float((new > limits).float().mean())
        assert risk - 2 / 61 - 0.015 < share <= risk + 0.015
    with pytest.raises(ValueError, match="at least 19"):
        conformal_quantile(torch.zeros(18), 0.05)


def test_overspend_is_counted_in_what_the_budget_counts():
    class Toll(DynamicsEnsemble):
        def step(self, obs, actions, members=None):
            ones = torch.ones(len(obs))
            return Transition(obs, ones, 2.0 * ones, ones)

    told = []

    def policy(obs, remaining, left):
        told.append((remaining.clone(), left.clone()))
        return torch.zeros(len(obs), 1)

    budgets = spread_budgets(4, 20.0)
    assert budgets.tolist() == [5, 10, 15, 20]
    over = imagined_overspend(policy, Toll(1, 1, 4, 2), torch.zeros(4, 1), budgets, 3, 0.5)
    assert over.tolist() == pytest.approx([2 * 1.75 - budget for budget in budgets.tolist()])
    assert told[1][0].tolist() == pytest.approx([2 * (b - 2) for b in budgets.tolist()])
    assert [float(left[0]) for _, left in told] == [3, 2, 1]


def test_plans_include_the_critics_own(frontier_agent):
    plan = frontier_agent.plan(HANGING, 10.0, 100, return_candidates=True)
    assert plan.candidates.actions.shape == (1, 4 + len(MULTIPLIERS), 8, 1)
    assert plan.actions.shape == (1, 8, 1) and (np.abs(plan.actions) <= 2.0 + 1e-5).all()
    np.testing.assert_allclose(plan.candidates.observations[0, :, 0], [HANGING] * 15, atol=1e-5)
    costs, returns = plan.candidates.predicted_cost[0], plan.candidates.predicted_return[0]
    within = costs <= 10.0 - frontier_agent.margin
    best = np.argmax(np.where(within, returns, -np.inf)) if within.any() else np.argmin(costs)
    assert plan.candidates.chosen[0] == best and plan.feasible[0] == within.any()
    assert np.isfinite(frontier_agent.plan(HANGING, math.inf, 1).predicted_return).all()


def test_risk_sets_the_margin(frontier_agent, tmp_path):
    calibration = frontier_agent.calibration
    overspend = calibration.overspend.sort().values
    underestimate = calibration.underestimate.sort().values
    assert len(overspend) == 20 and len(underestimate) >= 20  # of two held-out episodes
    frontier_agent.save(tmp_path)
    for risk, overspend_rank in ((0.1, 20), (0.5, 16)):  # ceil(21 (1 - risk / 2))
        rank = math.ceil((len(underestimate) + 1) * (1 - risk / 2))
        expected = max(0, overspend[overspend_rank - 1]) + max(0, underestimate[rank - 1])
        agent = TrebiAgent.load(tmp_path, risk=risk)
        assert agent.margin == pytest.approx(float(expected))
    assert TrebiAgent.load(tmp_path, risk=None).margin == 0.0
    with pytest.raises(ValueError, match="larger risk"):
        TrebiAgent.load(tmp_path, risk=0.001)
    again = TrebiAgent.load(tmp_path)
    np.testing.assert_array_equal(
        again.act(HANGING, 10.0, 100), TrebiAgent.load(tmp_path).act(HANGING, 10.0, 100)
    )


def test_models_that_are_not_trusted_imagine_nothing(tiny_episodes, monkeypatch):
    monkeypatch.setattr(Brancher, "branch", pytest.fail)
    poor = QUICKLY | {"model_tolerance": 1e-9, "min_branch_steps": 2, "critic_steps": 3}
    agent = fit(tiny_episodes, preset_config("frontier", **poor), seed=0)[0]
    assert int(agent.networks.dynamics.trusted_steps) == 1
    assert min(map(len, vars(agent.calibration).values())) > 100
    assert "recorded episodes alone" in facts(agent)["model rollouts"]
    assert agent.act(HANGING, 10.0, 100).shape == (1,)


def test_too_small_a_risk_is_refused_before_the_training(tiny_episodes):
    config = preset_config("frontier", "safe/Pendulum-v0", **(QUICKLY | {"risk": 0.01}))
    with pytest.raises(ValueError, match="needs 199 calibration_episodes.*there are 20 and 50"):
        fit(tiny_episodes, config, progress=pytest.fail)


def test_model_errors_travel_with_the_agent(frontier_agent, tmp_path):
    errors = frontier_agent.about["model_errors"]
    assert set(errors) == {"observation", "return", "cost"}
    assert all(len(values) == 8 for values in errors.values())


@pytest.mark.parametrize("stop_at", [20, 60, 85])  # denoiser, models, critic
def test_interrupted_training_ends_in_the_same_agent(tiny_episodes, tmp_path, stop_at):
    quickly = QUICKLY | {"calibration_episodes": 0, "risk": None}
    config = preset_config("frontier", "safe/Pendulum-v0", **quickly)
    whole, _ = fit(tiny_episodes, config, seed=3)

    def stop(done, total, **values):
        if done == stop_at:
            raise KeyboardInterrupt

    path = tmp_path / "training.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_episodes, config, seed=3, state_path=path, save_interval=10, progress=stop)
    seen = []
    continued, _ = fit(
        tiny_episodes, config, seed=3, state_path=path, save_interval=10,
        progress=lambda done, total, **values: seen.append(done),
    )  # fmt: skip
    assert seen[0] > stop_at - 41 and seen[-1] == 100
    for name, tensor in whole.networks.state_dict().items():
        torch.testing.assert_close(continued.networks.state_dict()[name], tensor, msg=name)


def test_terminations_and_discounted_budgets(datasets_root):
    """Hopper falls, and its budgets are discounted: both are part of the models and the critic."""
    env = EpisodeRecorder(gym.make("safe/Hopper-v0"), 0)
    env.action_space.seed(0)
    for _ in range(40):
        env.reset()
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    env.close()
    metadata = {"cost_discount": 0.99, "max_episode_steps": 1000, "max_budget": 30.0}
    write_dataset("tests/hopper/random-v0", "safe/Hopper-v0", env.finished, metadata)
    quickly = QUICKLY | {"model_steps": 300, "calibration_episodes": 0, "risk": None}
    config = preset_config("frontier", "safe/Hopper-v0", **quickly)
    agent, _ = fit(load_episodes("tests/hopper/random-v0"), config, device="cpu")
    dynamics, critic = agent.networks.dynamics, agent.networks.critic
    assert critic.discount == 1.0 and critic.cost_discount == agent.cost_discount == 0.99
    assert dynamics.terminates == 1
    episode = env.finished[0]
    ends = torch.tensor(
        episode["observations"][[0, -2]], dtype=torch.float32
    )  # the first step, and the last one
    actions = torch.tensor(episode["actions"][[0, -1]], dtype=torch.float32)
    survival = dynamics.step(
        agent.normalizer.normalize(ends, slice(3, None)),
        agent.normalizer.normalize(actions, slice(0, 3)),
    ).survival
    assert survival[0] > 0.9 > survival[1]
    plan = agent.plan(episode["observations"][0], 20.0, 1000)
    assert np.isfinite(plan.predicted_return).all() and plan.actions.shape == (1, 8, 3)


@pytest.mark.parametrize("margins", [(40.0, 30.0), (40.0, 50.0), (70.0, 65.0), (20.0, 0.0)])
def test_a_critic_that_needs_too_large_a_margin_is_trained_without_branches(
    tiny_episodes, monkeypatch, margins
):
    """Then it is the one that a training without branches gives, if that needs a smaller one."""
    by_branches = preset_config("frontier", "safe/Pendulum-v0", **QUICKLY)
    calibrations = [Calibration(torch.zeros(200), torch.full((20,), margin)) for margin in margins]
    asked = iter(calibrations)
    done = []
    monkeypatch.setattr(frontier_fit, "calibrate", lambda *_, **__: next(asked))
    agent, _ = fit(tiny_episodes, by_branches, progress=lambda *steps, **_: done.append(steps))
    assert done[-1][0] <= done[-1][1] and sorted(done) == done
    tries, kept = (1, 0) if margins[0] < 30 else (2, int(margins == (40.0, 30.0)))
    assert len(list(asked)) == 2 - tries
    assert agent.calibration is calibrations[kept] and agent.about["branches"] == (not kept)
    alike = by_branches.override(branch_share=0.0) if kept else by_branches
    monkeypatch.setattr(frontier_fit, "calibrate", lambda *_, **__: calibrations[0])
    expected = fit(tiny_episodes, alike.override(max_margin=1.0))[0]
    for tensor, other in zip(
        agent.networks.critic.parameters(), expected.networks.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(tensor, other)
