"""Others read our datasets, and we read theirs."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from safe_diffusion_agent.data.hdf5 import import_hdf5
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.errors import DatasetError, UnknownNameError
from safe_diffusion_agent.experiments.cards import describe
from safe_envs.costs import COST_FUNCTIONS


def run(code, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


D3RLPY = """
import sys, numpy as np, safe_envs
from d3rlpy.datasets import get_minari
from safe_diffusion_agent.data.reading import load_episodes
theirs, env = get_minari(sys.argv[1])
ours = load_episodes(sys.argv[1])
assert env.spec.id == ours.env_id
assert len(theirs.episodes) == len(ours.lengths)
for name in ("actions", "rewards"):
    read = np.concatenate([getattr(episode, name) for episode in theirs.episodes])
    np.testing.assert_allclose(read.ravel(), getattr(ours, name).ravel())
first = theirs.episodes[0]
np.testing.assert_array_equal(first.observations, ours.observations[: ours.lengths[0]])
"""


def test_d3rlpy_reads_it(tiny_dataset):
    """Its loader keeps Minari's T + 1 observations, so that only the first episode's are aligned.

    This is so for every Minari dataset (d3rlpy 2.8.0); it knows no costs.
    """
    pytest.importorskip("d3rlpy", reason="d3rlpy is in the dev extra", exc_type=ImportError)
    run(D3RLPY, tiny_dataset)


TORCHRL = """
import sys, numpy as np, safe_envs
from tensordict import TensorDict
from torchrl.data.datasets.minari_data import MinariExperienceReplay
from safe_diffusion_agent.data.reading import load_episodes
TensorDict.memmap_like = TensorDict.memmap
buffer = MinariExperienceReplay(
    sys.argv[1], batch_size=4, load_from_local_minari=True, root=sys.argv[2]
)
theirs = buffer[:]
ours = load_episodes(sys.argv[1])
np.testing.assert_array_equal(theirs["action"], ours.actions)
np.testing.assert_allclose(theirs["next", "reward"][:, 0], ours.rewards)
np.testing.assert_array_equal(theirs["next", "info", "cost"], ours.costs)
assert ours.costs.sum() > 0
"""


def test_torchrl_reads_it_and_the_costs_survive(tiny_dataset, tmp_path):
    """With one of its calls replaced: torchrl 0.14.1 reads a dataset and then stores zeros.

    (It calls `memmap_like`, which copies no content, after filling the tensors.)
    """
    pytest.importorskip("torchrl", reason="torchrl is in the dev extra", exc_type=ImportError)
    run(TORCHRL, tiny_dataset, tmp_path)


def transitions(seed=0):
    """Three episodes of 4, 3 and 2 steps (time-out, terminal, unfinished), flat as in DSRL."""
    rng = np.random.default_rng(seed)
    num = 9
    arrays = {
        "observations": rng.normal(size=(num, 3)).astype(np.float32),
        "next_observations": rng.normal(size=(num, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(num, 2)).astype(np.float32),
        "rewards": rng.normal(size=num),
        "costs": rng.integers(0, 2, size=num).astype(float),
        "terminals": np.zeros(num, bool),
        "timeouts": np.zeros(num, bool),
    }
    arrays["timeouts"][3] = arrays["terminals"][6] = True
    for t in (0, 1, 2, 4, 5):
        arrays["next_observations"][t] = arrays["observations"][t + 1]
    return arrays


def write(path, arrays, without=(), **more):
    with h5py.File(path, "w") as file:
        for name, array in (arrays | more).items():
            if name not in without:
                file[name] = array
    return path


def test_dsrl_file(tmp_path):
    arrays = transitions()
    path = write(tmp_path / "dsrl.hdf5", arrays)
    loaded = load_episodes(import_hdf5(path, "tests/dsrl-v0", cost_discount=0.99))
    assert loaded.lengths.tolist() == [4, 3]
    assert loaded.terminated.tolist() == [False, True]
    np.testing.assert_array_equal(loaded.costs, arrays["costs"][:7])
    np.testing.assert_array_equal(loaded.actions, arrays["actions"][:7])
    np.testing.assert_array_equal(loaded.observations[:4], arrays["observations"][:4])
    np.testing.assert_array_equal(loaded.observations[4], arrays["next_observations"][3])
    np.testing.assert_array_equal(loaded.observations[-1], arrays["next_observations"][6])
    assert (loaded.cost_discount, loaded.max_episode_steps) == (0.99, 4)
    assert loaded.action_high.tolist() == [1.0, 1.0]


def test_an_environment_says_how_long_episodes_may_be(tmp_path):
    """Also where all of the file's end before: an agent is told up to 200 steps there."""
    arrays = transitions()
    num = len(arrays["rewards"])
    of_pendulum = {
        "observations": np.zeros((num, 3), np.float32), "actions": np.zeros((num, 1), np.float32),
        "next_observations": np.zeros((num, 3), np.float32),
    }  # fmt: skip
    path = write(tmp_path / "short.hdf5", arrays | of_pendulum)
    loaded = load_episodes(import_hdf5(path, "tests/short-v0", env_id="safe/Pendulum-v0"))
    assert loaded.lengths.max() == 4 and loaded.max_episode_steps == 200


def test_without_next_observations_the_last_steps_are_left_out(tmp_path):
    arrays = transitions()
    path = write(tmp_path / "old.hdf5", arrays, without=["next_observations"])
    loaded = load_episodes(import_hdf5(path, "tests/old-v0"))
    assert loaded.lengths.tolist() == [3, 2]
    assert not loaded.terminated.any()
    np.testing.assert_array_equal(loaded.observations[3], arrays["observations"][3])


def test_d4rl_file_with_the_speed_as_its_cost(tmp_path):
    x = np.array([0.0, 1.0, 3.0, 6.0, 10.0, 9.0, 7.0, 100.0, 101.0])
    arrays = transitions()
    path = write(tmp_path / "d4rl.hdf5", arrays, without=["costs"], **{"infos/qpos": x[:, None]})

    def speed(observation, action, next_observation, info):
        return np.abs(info["x_velocity"])

    loaded = load_episodes(import_hdf5(path, "tests/d4rl-v0", cost_fn=speed, step_seconds=0.5))
    # The last step of an episode repeats the one before it: the position after it is not there.
    assert loaded.costs.tolist() == [2.0, 4.0, 6.0, 6.0, 2.0, 4.0, 4.0]


def test_files_that_lack_something_are_refused(tmp_path):
    path = write(tmp_path / "nocost.hdf5", transitions(), without=["costs"])
    with pytest.raises(DatasetError, match="has no costs .* cost_key"):
        import_hdf5(path, "tests/nocost-v0")
    with pytest.raises(DatasetError, match="needs the info 'x_velocity'.* positions"):
        import_hdf5(path, "tests/nocost-v0", cost_fn=COST_FUNCTIONS["speed"])
    arrays = transitions()
    arrays["timeouts"][:] = arrays["terminals"][:] = False
    with pytest.raises(DatasetError, match="has no whole episode"):
        import_hdf5(write(tmp_path / "endless.hdf5", arrays), "tests/endless-v0")
    arrays = transitions()
    arrays["rewards"] = arrays["rewards"][:-1]
    with pytest.raises(DatasetError, match="different lengths"):
        import_hdf5(write(tmp_path / "short.hdf5", arrays), "tests/short-v0")


def test_any_dataset_gets_its_cost_from_a_function(tiny_dataset, tiny_episodes, tmp_path):
    from safe_envs.costs import pendulum_cost

    computed = load_episodes(tiny_dataset, cost_fn=pendulum_cost)
    np.testing.assert_allclose(computed.costs, tiny_episodes.costs, atol=1e-6)

    card = describe(tiny_dataset, tmp_path, cost_fn=lambda *_: np.full(200, 0.5)).read_text()
    assert "| episode cost | 100 | 100 |" in card

    def needs_speed(observation, action, next_observation, info):
        return info["x_velocity"]

    with pytest.raises(DatasetError, match="needs the info 'x_velocity'"):
        load_episodes(tiny_dataset, cost_fn=needs_speed)


def test_cost_functions_are_named_on_the_command_line():
    from safe_diffusion_agent.cli.options import parse_function
    from safe_envs.costs import pendulum_cost

    assert parse_function("pendulum") is pendulum_cost
    assert parse_function("safe_envs.costs:pendulum_cost") is pendulum_cost
    assert parse_function(None) is None
    with pytest.raises(UnknownNameError, match="Did you mean 'pendulum'"):
        parse_function("pendulm")
