import pytest

from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit


@pytest.fixture(scope="session")
def quickly():
    """Settings of a training that takes a second or two."""
    return {
        "num_steps": 30, "batch_size": 32, "model_steps": 40, "critic_steps": 30,
        "imitation_steps": 30, "critic_batch_size": 32, "num_branches": 60, "branch_interval": 10,
        "calibration_episodes": 20, "horizon": 8, "num_candidates": 4, "risk": 0.1,
        "min_branch_steps": 1,
    }  # fmt: skip


@pytest.fixture(scope="session")
def frontier_agent(tiny_episodes, quickly):
    config = METHODS["trebi"].config("frontier", "safe/Pendulum-v0", **quickly)
    return fit(tiny_episodes, config, seed=0)[0]
