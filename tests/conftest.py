"""Shared fixtures: a small dataset of real physics, and an agent trained on it for a moment."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
# The suite runs in a process per core; each, and what it starts, computes on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import pytest
import torch

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import EpisodeRecorder
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_envs import TASKS

TINY_DATASET = "tests/pendulum/swinging-v0"


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that take one")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def skip_bullet_tasks_without_pybullet(request):
    """It has no wheels for newer versions of Python."""
    callspec = getattr(request.node, "callspec", None)
    env_id = callspec.params.get("env_id") if callspec else None
    if env_id in TASKS and ".bullet." in TASKS[env_id].entry_point:
        pytest.importorskip("pybullet")


@pytest.fixture(scope="session")
def device(request) -> str:
    return request.config.getoption("--device")


@pytest.fixture(scope="session", autouse=True)
def datasets_root(tmp_path_factory):
    """Minari's folder for the session; the user's own is not touched."""
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        yield root


def swinging_episodes(num_episodes: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Pendulum episodes that start anywhere and pump energy in, so that some pass the top."""
    env = EpisodeRecorder(gym.make("safe/Pendulum-v0", mode="train"), seed)
    rng = np.random.default_rng(seed)
    for _ in range(num_episodes):
        obs, _ = env.reset()
        gain = rng.uniform(-1.0, 2.0)
        done = False
        while not done:
            push = gain * np.sign(obs[2]) + rng.normal(0.0, 0.3)
            action = np.clip([push], -2.0, 2.0).astype(np.float32)
            obs, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
    env.close()
    return env.finished


@pytest.fixture(scope="session")
def tiny_dataset(datasets_root) -> str:
    metadata = {"cost_discount": 1.0, "max_episode_steps": 200, "max_budget": 60.0}
    write_dataset(TINY_DATASET, "safe/Pendulum-v0", swinging_episodes(12), metadata)
    return TINY_DATASET


@pytest.fixture(scope="session")
def tiny_episodes(tiny_dataset) -> Episodes:
    return load_episodes(tiny_dataset)


@pytest.fixture(scope="session")
def tiny_agent(tiny_episodes, device):
    config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", num_steps=60, batch_size=64)
    agent, _ = fit(tiny_episodes, config, seed=0, device=device)
    return agent
