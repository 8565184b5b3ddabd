import numpy as np
import pytest
import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.training import OptimizationConfig, optimize
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.networks import ValueNetworks
from safe_diffusion_agent.methods.trebi.training import (
    DenoiserTraining,
    ValueTraining,
    pinball,
    windows_of,
)


def training_of(episodes, **settings):
    config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", **settings)
    task, normalizer = Task.of(episodes), Normalizer.fit(episodes)
    windows = windows_of(episodes, normalizer, config, task, torch.device("cpu"))
    schedule = NoiseSchedule.cosine(config.model.diffusion_steps)
    return ValueTraining(ValueNetworks(config.model, task), windows, schedule, config, task)


def test_denoising_loss_is_the_weighted_mean_written_out(tiny_episodes):
    training = training_of(tiny_episodes)
    batch = training.windows.get(torch.tensor([0, 195, 199]))  # with masked entries
    predicted = torch.randn_like(batch.trajectories)
    total = 0.0
    num_rows, horizon, dim = predicted.shape
    for n in range(num_rows):
        for k in range(horizon):
            for d in range(dim):
                error = float(predicted[n, k, d] - batch.trajectories[n, k, d]) ** 2
                weight = training.config.first_action_weight if (k, d) == (0, 0) else 1.0
                known = k == 0 and d > 0
                total += weight * error * float(batch.mask[n, k, d]) * (not known)
    expected = total / predicted.numel()
    assert float(training.denoising_loss(predicted, batch)) == pytest.approx(expected, rel=1e-5)


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
    training = training_of(tiny_episodes, batch_size=64)
    # Three steps before the end of an episode.
    training.windows.sample = lambda num, _: training.windows.get(torch.full((num,), 197))
    losses, batch, noised, step = training._denoising(torch.Generator().manual_seed(0))
    assert len(noised) == 64
    assert torch.equal(noised[:, 0, 1:], batch.trajectories[:, 0, 1:])
    assert (noised[batch.mask == 0] == 0).all()
    assert (noised[:, 1, 0] != batch.trajectories[:, 1, 0]).all()
    assert step.min() == 0 and step.max() == 9
    predicted = training.networks.denoiser(noised, step)
    assert torch.equal(losses["denoising"], training.denoising_loss(predicted, batch))


def test_each_network_is_trained_by_its_own_loss(tiny_episodes):
    training = training_of(tiny_episodes)
    parts = training.losses(torch.Generator().manual_seed(0))
    assert parts.keys() == {"denoising", "reward_value", "cost_value"}
    for trained, expected in (("denoiser", "denoising"), ("reward", "reward_value")):
        for parameter in getattr(training.networks, trained).parameters():
            parameter.data.mul_(1.5)
        changed = training.losses(torch.Generator().manual_seed(0))
        different = {name for name in parts if not torch.equal(parts[name], changed[name])}
        assert different == {expected}
        parts = changed


def test_the_denoiser_alone_is_trained_as_beside_the_values(tiny_episodes):
    """The same batch, the same noise, the same loss: what `judge="frontier"` begins with."""
    training = training_of(tiny_episodes)
    alone = DenoiserTraining(
        training.networks, training.windows, training.schedule,
        METHODS["trebi"].config("quick", "safe/Pendulum-v0"), training.task,
    )  # fmt: skip
    both = [each.losses(torch.Generator().manual_seed(0)) for each in (training, alone)]
    assert both[1].keys() == {"denoising"}
    assert torch.equal(both[0]["denoising"], both[1]["denoising"])


def same_networks(training):
    """Gives a training the weights that every call gives."""
    generator = torch.Generator().manual_seed(0)
    for parameter in training.networks.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return training


def optimized(training, num_steps, **options):
    """Returns the weights of each network after so many steps, and the history."""
    config = OptimizationConfig(num_steps=num_steps, learning_rate=1e-3)
    generator = torch.Generator().manual_seed(0)
    networks, history = optimize(same_networks(training), config, generator=generator, **options)
    return weights(networks), history


def weights(networks):
    return {
        name: torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
        for name, network in networks.named_children()
    }


def test_values_can_have_a_learning_rate_of_their_own(tiny_episodes):
    """The first step of Adam moves every weight that has a gradient by the learning rate."""
    training = training_of(tiny_episodes, value_learning_rate=1e-4, batch_size=16)
    before = weights(same_networks(training).networks)
    after, _ = optimized(training, 1)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert moved == pytest.approx({"denoiser": 1e-3, "reward": 1e-4, "cost": 1e-4}, rel=0.02)


def test_values_can_be_trained_in_the_first_steps_alone(tiny_episodes):
    """What they are after those steps, they stay; the denoiser is trained on."""

    def training():
        return training_of(tiny_episodes, value_steps=2, batch_size=16)

    (one, _), (two, _), (five, history) = (optimized(training(), num) for num in (1, 2, 5))
    for name in ("reward", "cost"):
        assert torch.equal(two[name], five[name])
        assert not torch.equal(one[name], two[name])
    assert not torch.equal(two["denoiser"], five["denoiser"])
    assert [len(row) for row in history] == [4, 4, 2, 2, 2]  # the step, and its losses


def test_an_interrupted_training_remembers_that_the_values_are_done(tiny_episodes, tmp_path):
    def run(progress=None, **options):
        training = training_of(tiny_episodes, value_steps=2, batch_size=16)
        return optimized(training, 5, save_interval=1, progress=progress, **options)

    def stop(done, *_, **__):
        if done == 4:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(stop, state_path=path)
    (whole, history), (continued, continued_history) = run(), run(state_path=path)
    assert continued_history == history
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
