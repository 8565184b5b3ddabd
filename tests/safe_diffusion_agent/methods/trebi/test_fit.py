import pytest
import torch

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.training import windows_of


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_unet_presets_train_and_plan(tiny_episodes, preset):
    """The paper's networks at a tenth of their width: the whole road, a moment long."""
    config = METHODS["trebi"].config(
        preset, "safe/Pendulum-v0", base_width=16, width_mults=(1, 2), num_steps=3, batch_size=4,
        num_candidates=2,
    )  # fmt: skip
    agent, history = fit(tiny_episodes, config)
    assert [row["step"] for row in history] == [1, 2, 3]
    plan = agent.plan([-1.0, 0.0, 0.0], 10.0)
    assert plan.actions.shape == (1, 128, 1)
    assert agent.cost_discount == (0.99 if preset == "reference" else 1.0)


def test_the_references_shorter_training_of_values_is_one_of_its_stages(tiny_episodes):
    """On MuJoCo: a U-Net of three levels over four steps, and values that stop before it does."""
    config = METHODS["trebi"].config(
        "reference", "safe/HalfCheetah-v0", base_width=16, num_steps=3, batch_size=4,
        value_steps=2, num_candidates=2,
    )  # fmt: skip
    agent, history = fit(tiny_episodes, config)
    assert [sorted(row) for row in history[1:]] == [
        ["cost_value", "denoising", "reward_value", "step"], ["denoising", "step"]
    ]  # fmt: skip
    assert agent.plan([-1.0, 0.0, 0.0], 10.0).actions.shape == (1, 4, 1)


def test_values_learn_the_return_and_cost_to_go(tiny_episodes):
    """A short training already explains most of the variance of clean windows."""
    config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", num_steps=400, batch_size=128)
    agent, _ = fit(tiny_episodes, config, device="cpu")
    parts = (agent.normalizer, config, Task.of(tiny_episodes), torch.device("cpu"))
    windows = windows_of(tiny_episodes, *parts)
    batch = windows.get(torch.arange(0, len(windows), 7))
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
    config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", num_steps=5, batch_size=16)
    before = torch.get_rng_state()
    agents = [fit(tiny_episodes, config, seed=seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (list(agent.networks.parameters()) for agent in agents)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.cuda
def test_trains_on_cuda(tiny_episodes):
    config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", num_steps=50, batch_size=64)
    agent, history = fit(tiny_episodes, config, device="cuda")
    assert agent.device.type == "cuda"
    assert history[-1]["denoising"] < history[0]["denoising"]


def test_a_recorded_training_needs_a_gpu(tiny_episodes):
    config = METHODS["trebi"].config("quick", num_steps=1, recorded_training=True)
    with pytest.raises(ValueError, match="recorded_training needs a CUDA device"):
        fit(tiny_episodes, config, device="cpu")


def test_a_recorded_training_does_the_same_in_every_step(tiny_episodes):
    config = METHODS["trebi"].config("quick", recorded_training=True, value_steps=2)
    with pytest.raises(ValueError, match="value_steps should be None"):
        fit(tiny_episodes, config, device="cpu")


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("paper", {"num_candidates": 0}), ("quick", {"num_candidates": 0}),
     ("frontier", {"num_candidates": 0, "critic_plans": False, "idle_plan": False})],
)  # fmt: skip
def test_a_planner_without_candidates_is_refused_before_the_training(
    tiny_episodes, preset, settings
):
    config = METHODS["trebi"].config(preset, "safe/Pendulum-v0", risk=None, **settings)
    with pytest.raises(ValueError, match="num_candidates should be positive. Received 0"):
        fit(tiny_episodes, config, progress=pytest.fail)
