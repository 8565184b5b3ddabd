import numpy as np
import pytest
import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, Schedule
from safe_diffusion_agent.methods.trebi.fit import TrebiLoss, fit, pinball
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks
from safe_diffusion_agent.methods.trebi.presets import preset_config
from safe_diffusion_agent.methods.trebi.windows import Windows


def make_loss(episodes, **settings):
    config = preset_config("quick", "safe/Pendulum-v0", **settings)
    normalizer = Normalizer.fit(
        episodes.actions, episodes.observations, episodes.action_low, episodes.action_high
    )
    windows = Windows(
        episodes, normalizer, config.model.horizon, discount=1, cost_discount=1,
        coverage=config.training.windows,
    )  # fmt: skip
    schedule = Schedule.cosine(config.model.diffusion_steps)
    return TrebiLoss(windows, schedule, config, Task.of(episodes)), config


def test_denoising_loss_is_the_weighted_mean_written_out(tiny_episodes):
    loss, config = make_loss(tiny_episodes)
    batch = loss.windows.get(torch.tensor([0, 195, 199]))  # with masked entries
    predicted = torch.randn_like(batch.trajectories)
    total = 0.0
    num_rows, horizon, dim = predicted.shape
    for n in range(num_rows):
        for k in range(horizon):
            for d in range(dim):
                error = float(predicted[n, k, d] - batch.trajectories[n, k, d]) ** 2
                weight = config.training.first_action_weight if (k, d) == (0, 0) else 1.0
                known = k == 0 and d > 0
                total += weight * error * float(batch.mask[n, k, d]) * (not known)
    expected = total / predicted.numel()
    assert float(loss.denoising_loss(predicted, batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_pinball_loss_is_least_at_the_quantile(quantile):
    target = torch.randn(4001, generator=torch.Generator().manual_seed(0))
    grid = torch.linspace(-3, 3, 601)
    losses = [
        float(pinball(value.expand(4001, 1), target, torch.tensor([quantile]))) for value in grid
    ]
    expected = float(np.quantile(target.numpy(), quantile))
    assert float(grid[int(np.argmin(losses))]) == pytest.approx(expected, abs=0.02)


def test_noised_windows_keep_the_observation_and_the_mask(tiny_episodes):
    loss, _ = make_loss(tiny_episodes)
    batch = loss.windows.get(torch.full((64,), 197))  # three steps before the end of an episode
    noised, step = loss._noise(batch, torch.Generator().manual_seed(0))
    assert torch.equal(noised[:, 0, 1:], batch.trajectories[:, 0, 1:])
    assert (noised[batch.mask == 0] == 0).all()
    assert (noised[:, 1, 0] != batch.trajectories[:, 1, 0]).all()
    assert step.min() == 0 and step.max() == 9


def test_each_network_is_trained_by_its_own_loss(tiny_episodes):
    loss, config = make_loss(tiny_episodes)
    networks = TrebiNetworks(config.model, Task.of(tiny_episodes))
    _, parts = loss(networks, torch.Generator().manual_seed(0))
    assert parts.keys() == {"denoising", "reward_value", "cost_value"}
    for trained, expected in (("denoiser", "denoising"), ("reward", "reward_value")):
        for parameter in getattr(networks, trained).parameters():
            parameter.data.mul_(1.5)
        _, changed = loss(networks, torch.Generator().manual_seed(0))
        different = {name for name in parts if not torch.equal(parts[name], changed[name])}
        assert different == {expected}
        parts = changed


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_unet_presets_train_and_plan(tiny_episodes, preset):
    """The paper's networks at a tenth of their width: the whole road, a moment long."""
    config = preset_config(
        preset, "safe/Pendulum-v0", base_width=16, width_mults=(1, 2), num_steps=3, batch_size=4,
        num_candidates=2,
    )  # fmt: skip
    agent, history = fit(tiny_episodes, config)
    assert [row["step"] for row in history] == [1, 2, 3]
    plan = agent.plan([-1.0, 0.0, 0.0], 10.0)
    assert plan.actions.shape == (1, 128, 1)
    assert agent.cost_discount == (0.99 if preset == "reference" else 1.0)


def test_values_learn_the_return_and_cost_to_go(tiny_episodes):
    """A short training already explains most of the variance of clean windows."""
    config = preset_config("quick", "safe/Pendulum-v0", num_steps=400, batch_size=128)
    agent, _ = fit(tiny_episodes, config, device="cpu")
    loss, _ = make_loss(tiny_episodes)
    batch = loss.windows.get(torch.arange(0, len(loss.windows), 7))
    time_to_go = batch.remaining_steps[:, None] / 200
    clean = torch.zeros(1, dtype=torch.int64)
    for network, target in (
        (agent.networks.reward, batch.returns),
        (agent.networks.cost, batch.costs),
    ):
        predicted = network(batch.trajectories, clean, time_to_go)[:, 0]
        unexplained = ((predicted - target) ** 2).mean() / target.var()
        assert float(unexplained) < 0.3


def test_same_seed_same_agent_and_the_global_generator_stays(tiny_episodes):
    config = preset_config("quick", "safe/Pendulum-v0", num_steps=5, batch_size=16)
    before = torch.get_rng_state()
    agents = [fit(tiny_episodes, config, seed=seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (list(agent.networks.parameters()) for agent in agents)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.cuda
def test_trains_on_cuda(tiny_episodes):
    config = preset_config("quick", "safe/Pendulum-v0", num_steps=50, batch_size=64)
    agent, history = fit(tiny_episodes, config, device="cuda")
    assert agent.device.type == "cuda"
    assert history[-1]["denoising"] < history[0]["denoising"]


def test_a_recorded_training_needs_a_gpu(tiny_episodes):
    config = preset_config("quick", num_steps=1, recorded_training=True)
    with pytest.raises(ValueError, match="recorded_training needs a CUDA device"):
        fit(tiny_episodes, config, device="cpu")
