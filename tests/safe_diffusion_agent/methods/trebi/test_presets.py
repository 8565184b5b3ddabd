"""Every faster way to plan is held to the plain one, with the same noise."""

import numpy as np
import pytest
import torch

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.learning.dynamics import imagine
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.frontier.critic import MULTIPLIERS
from safe_diffusion_agent.methods.trebi.planner import budget_gradient
from safe_diffusion_agent.methods.trebi.presets import PRESETS
from safe_diffusion_agent.settings import override

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)
STATES = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.6, -0.8, -4.0]], np.float32)


@pytest.fixture(scope="module")
def unet_folder(tiny_episodes, tmp_path_factory):
    config = METHODS["trebi"].config(
        "paper", num_steps=20, batch_size=8, horizon=8, base_width=16, width_mults=(1, 2),
        diffusion_steps=6, num_candidates=16, penalty=20.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("unet")
    fit(tiny_episodes, config)[0].save(folder)
    return folder


@pytest.mark.parametrize("budget", [0.0, 30.0, np.inf])
def test_bfloat16_moves_candidates_by_far_less_than_the_noise_does(unet_folder, budget):
    """8 bits of mantissa: a few per cent of the spread of the candidates, and no bias."""
    exact, rounded = (
        TrebiAgent.load(unet_folder, precision=precision).plan(
            STATES, budget, 100, generator=torch.Generator().manual_seed(0), return_candidates=True
        )
        for precision in ("float32", "bfloat16")
    )
    spread = exact.candidates.actions.std()
    error = rounded.candidates.actions - exact.candidates.actions
    assert 0 < np.sqrt((error**2).mean()) < 0.1 * spread
    assert abs(error.mean()) < 0.01 * spread


def test_gradient_is_that_of_two_passes_one_per_network(unet_folder):
    """Against the reference code's way: reward and cost differentiated one after the other."""
    agent = TrebiAgent.load(unet_folder, device="cpu")
    x, step = torch.randn(12, 8, 4, generator=agent.generator), torch.tensor([2])
    budgets = torch.linspace(-5.0, 60.0, 12)
    values = [
        lambda y, network=network: network(y, step)[:, 0]
        for network in (agent.networks.reward, agent.networks.cost)
    ]
    ours = budget_gradient(x, budgets, *values, guidance_scale=0.1, penalty=7.0)
    gradients = []
    for value in values:
        y = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(value(y).sum(), y)[0])
    over = (values[1](x) > budgets).float()[:, None, None]
    torch.testing.assert_close(ours, 0.1 * (gradients[0] - 7.0 * over * gradients[1]))


def test_sampling_steps_can_be_changed_when_loading(unet_folder, monkeypatch):
    agent = TrebiAgent.load(unet_folder, sampling_steps=2)
    told = []
    original = agent.networks.denoiser.forward
    monkeypatch.setattr(
        agent.networks.denoiser,
        "forward",
        lambda x, step: told.append(int(step)) or original(x, step),
    )
    agent.act(HANGING, 10.0)
    assert told == [5, 2]
    with pytest.raises(ValueError, match="sampling_steps"):
        TrebiAgent.load(unet_folder, sampling_steps=7)
    with pytest.raises(ValueError, match="num_candidates"):
        TrebiAgent.load(unet_folder, num_candidates=0)


@pytest.fixture(scope="module")
def frontier_agents():
    """The same agent as `frontier`, `fast` and `realtime`."""
    agents = {}
    for preset in ("frontier", "fast", "realtime"):
        planner = PRESETS[preset].planner
        agents[preset] = TrebiAgent.load(
            "pendulum",
            device="cpu",
            sampling_steps=planner.sampling_steps,
            num_candidates=planner.num_candidates,
        )
    return agents


def test_presets_for_speed_differ_from_frontier_in_the_planner_alone():
    for name in ("fast", "realtime"):
        preset, frontier = PRESETS[name], PRESETS["frontier"]
        assert preset.model == frontier.model and preset.training == frontier.training


@pytest.mark.parametrize(("num_candidates", "branches"), [(0, True), (4, False)])
def test_plans_of_the_critic_alone_are_warned_of(num_candidates, branches, frontier_agents):
    def agent_of(num_candidates, branches):
        agent = frontier_agents["realtime"]
        config = override(agent.config, {"num_candidates": num_candidates})
        about = agent.about | {"branches": branches}
        return TrebiAgent(
            agent.networks, agent.normalizer, config, agent.task, agent.calibration,
            about=about, device="cpu",
        )  # fmt: skip

    agent_of(num_candidates, branches)  # a warning would be an error
    with pytest.warns(UserWarning, match="learned from the recorded episodes alone"):
        agent_of(0, branches=False)


def test_the_critics_plans_are_rated_alike_with_and_without_diffusion(frontier_agents):
    num = len(MULTIPLIERS)
    plans = [
        agent.plan(STATES, 20.0, 150, return_candidates=True).candidates
        for agent in frontier_agents.values()
    ]
    for plan in plans[1:]:
        for name in ("actions", "observations", "predicted_return", "predicted_cost"):
            expected = getattr(plans[0], name)[:, -num:]
            np.testing.assert_allclose(
                getattr(plan, name)[:, -num:], expected, rtol=1e-4, atol=1e-4
            )
    assert plans[2].actions.shape[1] == num


def test_one_joint_rollout_is_that_of_each_behavior(frontier_agents):
    judge = frontier_agents["frontier"].planner.judge
    critic, grid = judge.critic, judge.critic.multipliers
    obs, left = torch.tensor([[0.3, -0.5, 1.0], [1.0, 0.2, -0.4]]), torch.tensor([3.0, 90.0])
    plans = torch.randn(2, 4, 6, 1, generator=torch.Generator().manual_seed(0))
    joint = judge.imagine_plans(obs, plans, left, behaviors=True)
    returns = joint.returns.view(2, -1, 6)
    clamped = plans.clamp(critic.action_low, critic.action_high)
    discounts = {"discount": critic.discount, "cost_discount": critic.cost_discount}
    for row in range(2):
        for column in range(4 + len(grid)):

            def policy(o, t, row=row, column=column):
                if column < 4:
                    return clamped[row, column, t][None]
                steps = (left[row : row + 1] - t).clamp_min(1.0)
                return critic.act(o, steps, grid[column - 4 : column - 3])

            alone = imagine(judge.dynamics, obs[row : row + 1], policy, 6, **discounts)
            torch.testing.assert_close(returns[row, column], alone.returns[0])
