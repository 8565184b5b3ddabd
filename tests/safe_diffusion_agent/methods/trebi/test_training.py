import numpy as np
import pytest
import torch

from safe_diffusion_agent.episodes import Task
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
