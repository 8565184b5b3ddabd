import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.errors import DatasetError

METADATA = {"cost_discount": 0.9, "max_episode_steps": 200, "algorithm": "by hand"}


def recorded_episodes(num_episodes=3, num_steps=5, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.normal(size=(num_steps + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-2, 2, size=(num_steps, 1)).astype(np.float32),
            "rewards": rng.normal(size=num_steps),
            "costs": rng.uniform(size=num_steps),
            "terminations": np.arange(num_steps) == (num_steps - 1 if index == 1 else -1),
            "truncations": np.arange(num_steps) == (num_steps - 1 if index != 1 else -1),
        }
        for index in range(num_episodes)
    ]


def write_raw(dataset_id, **changes):
    """A dataset written by Minari alone, with some field of its second episode changed."""
    buffers = []
    for index in range(2):
        episode = recorded_episodes(1, seed=index)[0]
        costs = np.concatenate([[0.0], episode.pop("costs")])
        fields = episode | {"infos": {"cost": costs}}
        if index == 1:
            fields |= {key: change(fields[key]) for key, change in changes.items()}
        buffers.append(EpisodeBuffer(**fields))
    minari.create_dataset_from_buffers(dataset_id, buffers, env="safe/Pendulum-v0")


def test_round_trip_keeps_every_number():
    episodes = recorded_episodes()
    write_dataset("tests/roundtrip-v0", "safe/Pendulum-v0", episodes, METADATA)
    loaded = load_episodes("tests/roundtrip-v0")
    for name in ("observations", "actions", "rewards", "costs"):
        expected = np.concatenate([episode[name] for episode in episodes])
        np.testing.assert_array_equal(getattr(loaded, name), expected)
    assert loaded.lengths.tolist() == [5, 5, 5]
    assert loaded.terminated.tolist() == [False, True, False]
    assert loaded.env_id == "safe/Pendulum-v0"
    assert (loaded.max_episode_steps, loaded.cost_discount) == (200, 0.9)
    assert loaded.action_low == [-2.0] and loaded.action_high == [2.0]
    costs = [episode["costs"].sum() for episode in episodes]
    np.testing.assert_allclose(loaded.episode_costs, costs)
    discounted = [episode["costs"] @ 0.9 ** np.arange(5) for episode in episodes]
    np.testing.assert_allclose(loaded.discounted_costs, discounted)
    assert loaded.max_budget == pytest.approx(np.mean(discounted))
    assert loaded.metadata["mean_episode_cost"] == pytest.approx(np.mean(costs))


def test_cost_of_an_action_is_at_its_own_index_although_minari_shifts_it():
    """What a real environment charged for each action, against the reader and the raw file."""
    env = gym.make("safe/Pendulum-v0", mode="train")
    obs, _ = env.reset(seed=0)
    charged, observations = [], [obs]
    actions = [env.action_space.sample() for _ in range(200)]
    for action in actions:
        obs, _, _, _, info = env.step(action)
        charged.append(info["cost"])
        observations.append(obs)
    assert np.ptp(charged) > 0
    episode = {
        "observations": np.array(observations),
        "actions": np.array(actions),
        "rewards": np.zeros(200),
        "costs": np.array(charged),
        "terminations": np.zeros(200, bool),
        "truncations": np.arange(200) == 199,
    }
    write_dataset("tests/shift-v0", "safe/Pendulum-v0", [episode], METADATA)
    np.testing.assert_array_equal(load_episodes("tests/shift-v0").costs, charged)
    raw = next(minari.load_dataset("tests/shift-v0").iterate_episodes())
    np.testing.assert_array_equal(raw.infos["cost"], [0.0, *charged])
    for t, cost in enumerate(charged):  # the cost is that of the observation acted on
        angle = np.degrees(np.arctan2(raw.observations[t][1], raw.observations[t][0]))
        assert cost == pytest.approx(max(0.0, 1 - abs(angle - 25) / 50), abs=1e-5)


def test_episode_metadata_has_return_and_costs():
    episodes = recorded_episodes()
    write_dataset("tests/summaries-v0", "safe/Pendulum-v0", episodes, METADATA)
    storage = minari.load_dataset("tests/summaries-v0").storage
    for episode, stored in zip(episodes, storage.get_episode_metadata(range(3)), strict=True):
        assert stored["return"] == pytest.approx(episode["rewards"].sum())
        assert stored["cost"] == pytest.approx(episode["costs"].sum())
        discounted = sum(0.9**t * cost for t, cost in enumerate(episode["costs"]))
        assert stored["discounted_cost"] == pytest.approx(discounted)


def test_environment_can_be_recovered_from_the_dataset():
    write_dataset("tests/recover-v0", "safe/Pendulum-v0", recorded_episodes(), METADATA)
    env = minari.load_dataset("tests/recover-v0").recover_environment()
    assert env.reset(seed=0)[1] == {"cost": 0.0}


def test_a_dataset_is_whole_or_absent():
    def interrupted():
        yield recorded_episodes(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset("tests/interrupted-v0", "safe/Pendulum-v0", interrupted(), METADATA)
    assert "tests/interrupted-v0" not in minari.list_local_datasets()
    write_dataset("tests/interrupted-v0", "safe/Pendulum-v0", recorded_episodes(), METADATA)
    assert "tests/interrupted-v0" in minari.list_local_datasets()
    assert not list(get_dataset_path().glob(".writing*"))


def test_fingerprint_changes_with_any_transition():
    prints = set()
    for changed in (None, "observations", "actions", "rewards", "costs"):
        episodes = recorded_episodes()
        if changed:
            episodes[2][changed].reshape(-1)[-1] += 0.5
        write_dataset("tests/fingerprint-v0", "safe/Pendulum-v0", episodes, METADATA)
        prints.add(load_episodes("tests/fingerprint-v0").fingerprint)
    assert len(prints) == 5


def with_nan(array):
    array = np.array(array)
    array.reshape(len(array), -1)[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": with_nan}, "Episode 1 .* NaN .* in its observations at step 3"),
        ({"rewards": with_nan}, "Episode 1 .* NaN .* in its rewards at step 3"),
        ({"infos": lambda i: {"cost": with_nan(i["cost"])}}, "NaN .* in its costs at step 2"),
        ({"actions": lambda a: a[:-1]}, "5 rewards, but its actions are for 4 steps"),
        ({"observations": lambda o: o[:-1]}, "5 rewards, but its observations are for 4 steps"),
        ({"infos": lambda i: {"cost": i["cost"][1:]}}, "but its costs are for 4 steps"),
        ({"infos": lambda _: {"price": np.zeros(6)}}, r"no costs at 'infos/cost' \(.*infos/price"),
    ],
)  # fmt: skip
def test_broken_datasets_are_refused_with_the_place(changes, message, request):
    dataset_id = f"tests/broken-{abs(hash(request.node.name))}-v0"
    with pytest.warns(UserWarning):
        write_raw(dataset_id, **changes)
    with pytest.raises(DatasetError, match=message):
        load_episodes(dataset_id)


def changed(step, value):
    return lambda array: np.where(np.arange(len(array)) == step, value, array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminations": changed(2, True)}, "Episode 1 .* at its last step, 4, .* It is at 2, 4"),
        ({"truncations": changed(4, False), "terminations": changed(4, False)}, "It is at none"),
        ({"truncations": lambda t: t[:-1]}, "5 rewards, but its truncations are for 4 steps"),
        ({"observations": lambda o: o[:, :2]}, r"Episode 1 .* observations of shape \(2,\), not"),
        ({"actions": lambda a: a[:, [0, 0]]}, r"Episode 1 .* actions of shape \(2,\), not \(1,\)"),
    ],
)
def test_episodes_that_are_not_whole_are_refused(changes, message, request):
    dataset_id = f"tests/ends-{abs(hash(request.node.name))}-v0"
    with pytest.warns(UserWarning):
        write_raw(dataset_id, **changes)
    with pytest.raises(DatasetError, match=message):
        load_episodes(dataset_id)


def test_costs_can_be_under_another_key():
    with pytest.warns(UserWarning):
        write_raw("tests/otherkey-v0", infos=lambda i: {"cost": i["cost"]})
    with h5py.File(get_dataset_path("tests/otherkey-v0") / "data" / "main_data.hdf5", "a") as file:
        for episode in file.values():
            episode["infos"].move("cost", "price")
    assert load_episodes("tests/otherkey-v0", cost_key="infos/price").costs.sum() > 0
    with pytest.raises(DatasetError, match="Give the right cost_key"):
        load_episodes("tests/otherkey-v0")


def test_missing_dataset_names_the_nearest(tiny_dataset):
    with pytest.raises(DatasetError, match=f"Did you mean '{tiny_dataset}'"):
        load_episodes("tests/pendulum/swinging-v1")


def test_other_spaces_are_refused():
    buffer = EpisodeBuffer(
        observations=np.zeros((3, 3), np.float32), actions=np.zeros(2, np.int64), rewards=[0.0] * 2,
        terminations=[False] * 2, truncations=[False, True], infos={"cost": np.zeros(3)},
    )  # fmt: skip
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            "tests/discrete-v0", [buffer], action_space=gym.spaces.Discrete(2),
            observation_space=gym.spaces.Box(-1, 1, (3,)),
        )  # fmt: skip
    with pytest.raises(DatasetError, match="action space .* should be a one-dimensional Box"):
        load_episodes("tests/discrete-v0")
