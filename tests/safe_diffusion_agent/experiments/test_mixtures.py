import gymnasium as gym
import pytest
from stable_baselines3 import SAC

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.writing import stored_metadata
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.experiments.mixtures import MixConfig, mix_job
from safe_diffusion_agent.experiments.reproduce import plan


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = gym.make("safe/Pendulum-v0")
    SAC("MlpPolicy", env, buffer_size=1, policy_kwargs={"net_arch": [8]}).save("sac.zip")
    return MixConfig(env_id="safe/Pendulum-v0", policy="sac.zip", num_steps=800)


def test_half_of_the_steps_are_noisy(config):
    job = mix_job(config)
    assert not job.is_done()
    job.run()
    assert job.is_done() and load_episodes(config.dataset_id).lengths.sum() == 800
    policies = stored_metadata(config.dataset_id)["policies"]
    assert [(p["noise"], p["num_steps"]) for p in policies] == [(0.0, 400), (0.6, 400)]


def test_a_policy_that_is_not_in_place_is_asked_for(config, tmp_path):
    (tmp_path / "sac.zip").unlink()
    with pytest.raises(DatasetError, match="should be in sac.zip. docs/own_data.md says where"):
        mix_job(config).is_done()


def test_sizes_and_seeds_are_datasets_of_their_own():
    whole = {run.dataset_id: run.row.dataset for run in plan("robots")}
    short = {run.dataset_id: run.row.dataset for run in plan("robots", max_steps=2_000)}
    assert set(whole) == {"zoo/halfcheetah/half-noisy-v0", "zoo/walker2d/half-noisy-v0"}
    assert {config.num_steps for config in short.values()} == {2_000} and not set(whole) & set(
        short
    )
    seeded = MixConfig(env_id="safe/Hopper-v0", policy="hopper.zip", seed=3)
    assert seeded.dataset_id == "zoo/hopper/half-noisy-seed3-v0"
    with pytest.raises(ValueError, match="num_steps should be positive. Received 0"):
        mix_job(next(iter(plan("robots", max_steps=0))).row.dataset).run()
