import pytest
import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning import dynamics as blocked
from safe_diffusion_agent.learning.dynamics import MemberLinear
from safe_diffusion_agent.methods.trebi.config import ModelConfig
from safe_diffusion_agent.methods.trebi.networks import ValueNetworks
from safe_diffusion_agent.methods.trebi.unet import TemporalUNet, TrajectoryEncoder

TASK = Task(
    env_id=None, obs_dim=3, act_dim=1, action_low=(-1.0,), action_high=(1.0,),
    max_episode_steps=200, cost_discount=1.0, max_budget=1.0, dataset_id="", dataset_fingerprint="",
)  # fmt: skip


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    # Parameters of the released networks, by trajectory dimension (base width 32).
    ("dim", "mults", "horizon", "denoiser", "value"),
    [
        (23, (1, 2, 4, 8), 32, 3_958_327, 2_296_545),
        (14, (1, 2, 4, 8), 32, 3_956_302, 2_294_817),
        (13, (1, 2, 4, 8), 32, 3_956_077, 2_294_625),
        (4, (1, 2, 4, 8), 32, 3_954_052, 2_292_897),
        (23, (1, 4, 8), 4, 3_685_943, 2_180_833),
    ],
)
def test_unet_has_the_size_of_the_released_networks(dim, mults, horizon, denoiser, value):
    assert num_parameters(TemporalUNet(dim, 32, mults)) == denoiser
    assert num_parameters(TrajectoryEncoder(dim, horizon, 32, mults)) == value


@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize("rows", [0, 1, 50, 51, 173])
def test_blocks_of_rows_give_what_all_rows_give_at_once(members, rows, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_ROWS", 50)
    linear = MemberLinear(3, 5, 4) if members else torch.nn.Linear(5, 4)
    layers = blocked.BlockedLayers(linear, torch.nn.SiLU())
    sizes = []
    linear.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[-2]))
    x = torch.randn(*members, rows, 5)
    at_once = layers(x)  # with a gradient
    assert sizes == [rows] and at_once.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(layers(x), at_once.detach())
    assert sum(sizes) == 2 * rows and max(sizes[1:]) <= 50


@pytest.mark.parametrize("network", ["unet", "mlp"])
@pytest.mark.parametrize("horizon", [8, 32, 128])
@pytest.mark.parametrize("time_to_go", [False, True])
def test_shapes_for_every_horizon_of_the_paper(network, horizon, time_to_go):
    """The released value network cannot be built for the paper's H = 128."""
    config = ModelConfig(
        network=network, horizon=horizon, time_to_go=time_to_go, cost_quantiles=(0.5, 0.9)
    )
    networks = ValueNetworks(config, TASK)
    x, step = torch.randn(5, horizon, 4), torch.tensor([3])
    time = torch.rand(5, 1) if time_to_go else None
    assert networks.denoiser(x, step).shape == (5, horizon, 4)
    assert networks.reward(x, step, time).shape == (5, 1)
    assert networks.cost(x, step, time).shape == (5, 3)


@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_outputs_depend_on_every_input(network):
    config = ModelConfig(network=network, horizon=16, time_to_go=True)
    networks = ValueNetworks(config, TASK)
    x = torch.randn(2, 16, 4, requires_grad=True)
    time = torch.rand(2, 1, requires_grad=True)
    step = torch.tensor([1, 1])
    networks.cost(x, step, time).sum().backward()
    assert (x.grad != 0).all() and (time.grad != 0).all()
    denoised = networks.denoiser(x, step)
    assert not torch.equal(denoised, networks.denoiser(x, torch.tensor([5, 5])))
    torch.testing.assert_close(denoised, networks.denoiser(x, torch.tensor([1])))
    # A row's output does not depend on the others.
    torch.testing.assert_close(networks.denoiser(x[:1], step[:1]), denoised[:1])


@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_rescaled_output(network):
    config = ModelConfig(network=network, horizon=16, cost_quantiles=(0.9,))
    networks = ValueNetworks(config, TASK)
    x, step = torch.randn(4, 16, 4), torch.tensor([0])
    rewards, costs = networks.reward(x, step), networks.cost(x, step)
    two, three = torch.tensor(2.0), torch.tensor(3.0)
    networks.rescale((-two, two), (torch.tensor(7.0), three))
    torch.testing.assert_close(networks.reward(x, step), -2.0 + 2.0 * rewards)
    torch.testing.assert_close(networks.cost(x, step), 7.0 + 3.0 * costs)
