"""Policies that the user brings: the same dataset however often it was killed, and its origin."""

import hashlib
import math

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3

from safe_diffusion_agent.data.mixing import Mixture, Source
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import episode_seed
from safe_diffusion_agent.errors import CheckpointError, DatasetError, UnknownNameError
from safe_diffusion_agent.experiments.cards import describe
from safe_diffusion_agent.experiments.collecting import collect_with, default_own_id
from safe_diffusion_agent.experiments.policies import Behavior
from safe_diffusion_agent.methods.table import load_agent

PENDULUM = "safe/Pendulum-v0"
HOPPER = "safe/Hopper-v0"


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zips")
    hopper, pendulum = gym.make(HOPPER), gym.make(PENDULUM)
    small = {"net_arch": [8]}
    SAC("MlpPolicy", hopper, buffer_size=1, seed=0, policy_kwargs=small | {}).save(folder / "sac")
    PPO("MlpPolicy", hopper, seed=1).save(folder / "ppo")
    TD3("MlpPolicy", pendulum, buffer_size=1, seed=2, policy_kwargs=small | {}).save(folder / "td3")
    return folder


def labels(dataset_id, name):
    dataset = minari.load_dataset(dataset_id)
    metadata = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    return np.array([episode[name] for episode in metadata])


def behaviors(zips):
    return [
        Behavior(policy=zips / "sac.zip", share=0.5, noise=0.1),
        Behavior(policy=str(zips / "ppo.zip"), share=0.3),
        Behavior(policy="random", share=0.2),
    ]


@pytest.fixture(scope="module")
def mixed(zips, tmp_path_factory):
    return collect_with(
        behaviors(zips),
        HOPPER,
        num_steps=1500,
        num_envs=4,
        seed=5,
        dataset_id="tests/own/mixed-v0",
        state_dir=tmp_path_factory.mktemp("whole"),
    )


def test_every_beginning_has_the_shares(mixed):
    """Within one episode, at every episode: the policies' episodes have very different lengths."""
    episodes, policies = load_episodes(mixed), labels(mixed, "policy")
    total, steps = 0, np.zeros(3)
    for length, policy in zip(episodes.lengths, policies, strict=True):
        total += length
        steps[policy] += length
        assert np.abs(steps - total * np.array([0.5, 0.3, 0.2])).max() <= 2 * episodes.lengths.max()
    assert 1500 <= total < 1500 + episodes.lengths.max()
    np.testing.assert_allclose(steps / total, [0.5, 0.3, 0.2], atol=0.05)


def test_metadata_say_who_acted(mixed, zips):
    episodes = load_episodes(mixed)
    policies = episodes.metadata["policies"]
    assert [policy["name"] for policy in policies] == ["sac.zip", "ppo.zip", "random"]
    assert [policy["algorithm"] for policy in policies] == ["SAC", "PPO", "uniform actions"]
    assert [policy["noise"] for policy in policies] == [0.1, 0.0, 0.0]
    for policy in policies[:2]:
        content = (zips / policy["name"]).read_bytes()
        assert policy["sha256"] == hashlib.sha256(content).hexdigest()
    of = labels(mixed, "policy")
    for index, policy in enumerate(policies):
        assert policy["num_episodes"] == (of == index).sum()
        assert policy["num_steps"] == episodes.lengths[of == index].sum()
        mean = episodes.episode_returns[of == index].mean()
        assert policy["mean_return"] == pytest.approx(mean)
        cost = episodes.discounted_costs[of == index].mean()
        assert policy["mean_cost"] == pytest.approx(cost)
    behavior = episodes.metadata["behavior_policy"]
    assert behavior["num_episodes"] == len(of) and behavior["name"] == "3 policies"
    assert behavior["mean_return"] == pytest.approx(episodes.episode_returns.mean())
    assert (episodes.env_id, episodes.cost_discount) == (HOPPER, 0.99)
    assert episodes.metadata["cost"] == "|forward speed|, m/s"
    assert len(set(labels(mixed, "seed").tolist())) == len(of)


def test_episodes_are_what_the_environment_said(mixed):
    episodes, env = load_episodes(mixed), gym.make(HOPPER)
    rows = zip(
        labels(mixed, "seed"), episodes.first_steps, episodes.rows[episodes.first_steps],
        episodes.lengths, strict=True,
    )  # fmt: skip
    for seed, first, row, length in list(rows)[:5]:
        obs, _ = env.reset(seed=int(seed))
        for t in range(length):
            np.testing.assert_array_equal(np.float32(obs), episodes.observations[row + t])
            obs, reward, *_, info = env.step(episodes.actions[first + t])
            assert reward == episodes.rewards[first + t]
            assert info["cost"] == episodes.costs[first + t]


@pytest.mark.parametrize("step", [1, 1000])
def test_killed_and_continued_is_the_same_bit_for_bit(mixed, zips, tmp_path, step):
    def progress(done, total):
        assert total == 1500
        if done >= step:
            raise Killed

    options = dict(num_steps=1500, num_envs=4, seed=5, state_dir=tmp_path)
    options["dataset_id"] = f"tests/own/killed-{step}-v0"
    with pytest.raises(Killed):
        collect_with(behaviors(zips), HOPPER, **options, progress=progress)
    torch.rand(step)  # another process would be elsewhere
    before = torch.get_rng_state()
    again = collect_with(behaviors(zips), HOPPER, **options)
    assert torch.equal(before, torch.get_rng_state())
    for whole, continued in zip(
        minari.load_dataset(mixed).iterate_episodes(),
        minari.load_dataset(again).iterate_episodes(),
        strict=True,
    ):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(continued, name))
        np.testing.assert_array_equal(whole.infos["cost"], continued.infos["cost"])
    for name in ("seed", "policy"):
        assert labels(mixed, name).tolist() == labels(again, name).tolist()
    assert not list(tmp_path.iterdir()), "nothing is left of it"


def test_a_finished_collection_is_kept_and_another_not_replaced(mixed, zips):
    def no_progress(*_):
        raise AssertionError("it was collected again")

    options = dict(num_steps=1500, num_envs=4, seed=5, dataset_id=mixed, progress=no_progress)
    assert collect_with(behaviors(zips), HOPPER, **options) == mixed
    with pytest.raises(DatasetError, match="made with other settings .seed is 5, not 6"):
        collect_with(behaviors(zips), HOPPER, **(options | {"seed": 6}))


def test_noise_and_randomness_have_the_spread_they_should(tmp_path):
    """Noise is of half the range, 2 N m here; uniform actions have its width / sqrt(12)."""
    stand = Behavior(policy=lambda observations: np.zeros((len(observations), 1)), noise=0.1)
    options = dict(num_steps=4000, state_dir=tmp_path)
    noisy = load_episodes(collect_with(stand, PENDULUM, dataset_id="tests/own/noisy-v0", **options))
    assert noisy.actions.std() == pytest.approx(0.2, rel=0.05)
    assert abs(noisy.actions.mean()) < 0.02
    uniform = load_episodes(
        collect_with("random", PENDULUM, dataset_id="tests/own/uniform-v0", **options)
    )
    assert uniform.actions.std() == pytest.approx(4 / math.sqrt(12), rel=0.05)
    wild = Behavior(policy=stand.policy, noise=5.0)
    wild = load_episodes(collect_with(wild, PENDULUM, dataset_id="tests/own/wild-v0", **options))
    assert wild.actions.min() == -2.0 and wild.actions.max() == 2.0


def test_deterministic_policies_take_their_mode(zips, tmp_path):
    sac = SAC("MlpPolicy", gym.make(HOPPER), buffer_size=1, seed=0, policy_kwargs={"net_arch": [8]})
    policies = (zips / "sac.zip", sac)
    for index, policy in enumerate(policies):
        name = collect_with(
            Behavior(policy=policy, deterministic=True), HOPPER, num_steps=50, num_envs=2,
            dataset_id=f"tests/own/mode-{index}-v0", state_dir=tmp_path,
        )  # fmt: skip
        episodes = load_episodes(name)
        expected = sac.predict(episodes.observations[episodes.rows], deterministic=True)[0]
        np.testing.assert_allclose(episodes.actions, expected, atol=1e-5)


def test_our_agents_act_within_their_budgets(tiny_agent, tmp_path):
    """The pretrained one keeps what it is told; one in memory is told its largest."""
    name = collect_with(
        [Behavior(policy="pendulum", budget=10.0), Behavior(policy=tiny_agent)],
        PENDULUM, num_steps=400, dataset_id="tests/own/agents-v0", state_dir=tmp_path,
    )  # fmt: skip
    episodes = load_episodes(name)
    careful, other = episodes.metadata["policies"]
    assert careful["budget"] == 10.0 and 0.0 < careful["mean_cost"] <= 10.0
    assert careful["algorithm"] == "trebi, preset frontier" and len(careful["sha256"]) == 64
    assert other["budget"] == tiny_agent.task.max_budget and "actions_sha256" in other
    # The first action is the agent's own for this budget, with the recording's random numbers.
    agent = load_agent("pendulum")
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([0, 0, 0]).generate_state(1)[0]))
        first = agent.act(episodes.observations[:1], 10.0, [200], generator=torch.default_generator)
    np.testing.assert_allclose(first[0], episodes.actions[0], atol=1e-5)
    assert labels(name, "seed")[0] == episode_seed(0, 0)
    assert "trebi, preset frontier, share 0.5" in describe(name, tmp_path / "card").read_text()


def test_an_environment_of_ones_own(tmp_path):
    """Made by a function; a function acts, and another one is told from it by what it does."""

    class Plant(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Box(-1, 1, (2,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, False, False, {"cost": 2.0 * float(action[0])}

    def make():
        return gym.wrappers.TimeLimit(Plant(), 4)

    def controller(gain):
        return lambda observations: gain * observations

    options = dict(num_steps=20, num_envs=3, dataset_id="tests/own/plant-v0", state_dir=tmp_path)
    for _ in range(2):
        collect_with(controller(0.5), make, cost_discount=0.5, **options)
    episodes = load_episodes("tests/own/plant-v0")
    assert episodes.lengths.tolist() == [4] * 5 and episodes.env_id is None
    assert (episodes.max_episode_steps, episodes.cost_discount) == (4, 0.5)
    np.testing.assert_allclose(episodes.actions, 0.5 * episodes.observations[episodes.rows])
    np.testing.assert_allclose(episodes.costs, 2.0 * episodes.actions[:, 0])
    with pytest.raises(DatasetError, match="actions_sha256"):
        collect_with(controller(0.6), make, cost_discount=0.5, **options)
    with pytest.raises(ValueError, match="give dataset_id"):
        collect_with(controller(0.5), make)
    with pytest.raises(DatasetError, match="should have a time limit"):
        collect_with(controller(0.5), Plant, **options)


@pytest.mark.parametrize("share", [0.0, -1.0, math.nan, math.inf])
def test_impossible_shares(share):
    with pytest.raises(ValueError, match="The share of a policy should be positive"):
        Behavior(policy="random", share=share)


@pytest.mark.parametrize(
    ("policy", "options", "error", "message"),
    [
        ("none.zip", {}, CheckpointError, "There is no file none.zip"),
        ("pendulm", {}, UnknownNameError, "Did you mean 'pendulum'"),
        ("math:none", {}, ValueError, "module:function. Received 'math:none'"),
        (3, {}, ValueError, "a function from observations to actions. Received 3"),
        (lambda o: o[0, :1], {}, DatasetError, "it returned the shape .1,., not .4, 1."),
        (lambda o: o[:, :1] * np.nan, {}, DatasetError, "should be finite"),
        ("random", {"budget": 3.0}, ValueError, "A budget has no effect on random"),
        ("random", {"noise": -0.1}, ValueError, "noise should be a number of 0 or more"),
        ("pendulum", {"budget": math.nan}, ValueError, "budget should be a number"),
    ],
)
def test_impossible_policies(policy, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        collect_with(
            Behavior(policy=policy, **options), PENDULUM,
            dataset_id="tests/own/mistake-v0", state_dir=tmp_path,
        )  # fmt: skip


def test_impossible_environments(zips):
    with pytest.raises(CheckpointError, match="observations of shape .3,.. Those of the envi"):
        collect_with(zips / "td3.zip", HOPPER)
    with pytest.raises(
        ValueError, match="The agent pendulum has observations and actions of shape"
    ):
        collect_with("pendulum", HOPPER)
    with pytest.raises(ValueError, match="or a function that makes it"):
        collect_with("random", gym.make(PENDULUM))
    with pytest.raises(DatasetError, match="action space should be a one-dimensional Box"):
        collect_with("random", "CartPole-v1")
    with pytest.raises(DatasetError, match=r'Step 0 of the episode has no info\["cost"\]'):
        collect_with("random", "Pendulum-v1", dataset_id="tests/own/costless-v0")
    with pytest.raises(ValueError, match="num_envs should be positive"):
        collect_with("random", PENDULUM, num_envs=0)
    with pytest.raises(ValueError, match="at least one policy"):
        collect_with([], PENDULUM)


def test_a_default_id_says_the_task():
    assert default_own_id(PENDULUM) == "safe-envs/pendulum/own-policies-v0"
    assert default_own_id("plants:mine/Boiler-v2") == "mine/boiler/own-policies-v0"
    assert default_own_id("Pendulum-v1") == "gymnasium/pendulum/own-policies-v0"


def test_no_more_environments_run_than_are_needed(tmp_path):
    mixture = Mixture(
        sources=[Source(name="still", act=lambda o, *_: np.zeros((len(o), 1)))],
        make_env=lambda: gym.make(PENDULUM), max_episode_steps=200, cost_discount=1.0,
        num_steps=401, seed=0, num_envs=16, folder=tmp_path,
    )  # fmt: skip
    told = []
    assert len(list(mixture.episodes(lambda done, total: told.append((done, total))))) == 3
    assert told[0] == (3, 401) and told[-1] == (401, 401) and len(told) == 200
