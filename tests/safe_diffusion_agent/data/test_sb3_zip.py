"""Stable-Baselines3 itself is the witness: the same actions, without unpickling anything."""

import base64
import io
import json
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from safe_diffusion_agent.data.sb3_zip import load_zip_policy
from safe_diffusion_agent.errors import CheckpointError

OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def small():  # a new one each time: Stable-Baselines3 writes into it
    return {"net_arch": [8, 4]}


OFF = {"buffer_size": 1}


@pytest.fixture(scope="module")
def env():
    return gym.make("safe/Pendulum-v0")


def spaces_of(env):
    return env.observation_space, env.action_space


def scrambled(model):
    """A model whose weights are large, so that activation functions and squashing matter."""
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(3.0).add_(0.01)
    return model


MODELS = {
    "SAC": lambda env: SAC("MlpPolicy", env, policy_kwargs=small(), **OFF),
    "SAC with ELU": lambda env: SAC(
        "MlpPolicy",
        env,
        policy_kwargs={
            "activation_fn": nn.ELU,
            "net_arch": {"pi": [8], "qf": [6, 4]},
            "n_critics": 3,
        },
        **OFF,
    ),
    "TD3": lambda env: TD3("MlpPolicy", env, policy_kwargs=small(), **OFF),
    "DDPG": lambda env: DDPG("MlpPolicy", env, policy_kwargs=small(), **OFF),
    "PPO": lambda env: PPO("MlpPolicy", env),
    "PPO with ReLU": lambda env: PPO(
        "MlpPolicy",
        env,
        policy_kwargs={
            "activation_fn": nn.ReLU,
            "log_std_init": -2,
            "ortho_init": False,
            "net_arch": {"pi": [8], "vf": [4, 4]},
            "features_extractor_class": FlattenExtractor,
        },
    ),
    "A2C": lambda env: A2C("MlpPolicy", env, policy_kwargs={"net_arch": []}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_zip_acts_as_the_model_does(name, env, tmp_path):
    model = scrambled(MODELS[name](env))
    model.save(tmp_path / "model.zip")
    torch.manual_seed(7)
    loaded = load_zip_policy(tmp_path / "model.zip", spaces_of(env))
    assert torch.initial_seed() == 7 and loaded.algorithm == name.split()[0]
    for deterministic in (True, False):
        torch.manual_seed(0)
        expected, _ = model.predict(OBSERVATIONS, deterministic=deterministic)
        torch.manual_seed(0)
        actions = loaded.act(OBSERVATIONS, deterministic=deterministic)
        np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("algorithm", ["TQC", "TRPO"])
def test_a_zip_of_sb3_contrib_acts_as_the_model_does(algorithm, env, tmp_path):
    contrib = pytest.importorskip("sb3_contrib")
    model = scrambled(getattr(contrib, algorithm)("MlpPolicy", env, policy_kwargs=small()))
    model.save(tmp_path / "model.zip")
    loaded = load_zip_policy(tmp_path / "model.zip", spaces_of(env))
    expected, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_array_equal(loaded.act(OBSERVATIONS, deterministic=True), expected)
    assert loaded.algorithm == algorithm


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_state_dependent_exploration_has_its_spread(algorithm, env, tmp_path):
    """Its standard deviation is sqrt(sum (latent exp(log_std))^2), the distribution's own."""
    model = algorithm("MlpPolicy", env, use_sde=True, policy_kwargs=small())
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if name.endswith("log_std"):
                parameter.fill_(-1.5)
    model.save(tmp_path / "model.zip")
    loaded = load_zip_policy(tmp_path / "model.zip", spaces_of(env))
    once = OBSERVATIONS[:1]
    mode = model.predict(once, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.act(once, deterministic=True), mode)
    torch.manual_seed(0)
    many = loaded.act(np.repeat(once, 4000, axis=0), deterministic=False)
    tensor = torch.from_numpy(once)
    if algorithm is PPO:
        std = model.policy.get_distribution(tensor).distribution.stddev.item()
        assert many.std() == pytest.approx(std, rel=0.05)
    else:
        assert len(np.unique(many)) > 3900 and many.mean() == pytest.approx(mode.item(), abs=0.1)


def rewritten(path, target, **parts):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as file:
        for name in source.namelist():
            file.writestr(name, parts.get(name.replace(".", "_"), source.read(name)))
    return target


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_zip_is_unpickled(env, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "model.zip"
    MODELS["SAC"](env).save(path)
    weights = rewritten(path, tmp_path / "weights.zip", policy_pth=pickle.dumps(Trap(sprung)))
    with pytest.raises(CheckpointError, match="not a zip that Stable-Baselines3 saved"):
        load_zip_policy(weights, spaces_of(env))
    with zipfile.ZipFile(path) as file:
        data = json.loads(file.read("data"))
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(pickle.dumps(Trap(sprung))).decode()
    trapped = rewritten(path, tmp_path / "data.zip", data=json.dumps(data))
    load_zip_policy(trapped, spaces_of(env))
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung))).close()
    assert sprung.exists(), "the trap works"


class OwnPolicy(ActorCriticPolicy):
    pass


class Scaled(FlattenExtractor):
    def forward(self, observations):
        return 0.1 * super().forward(observations)


CARTPOLE = "CartPole-v1"
REFUSED = {
    "observations": (
        lambda: SAC("MlpPolicy", gym.make("safe/Reacher-v0"), policy_kwargs=small(), **OFF),
        r"observations of shape \(\d+,\). Those of the environment have shape \(3,\)",
    ),
    "bounds": (
        lambda: SAC(
            "MlpPolicy",
            RescaleAction(gym.make("safe/Pendulum-v0"), np.float32(-1), np.float32(1)),
            policy_kwargs=small(),
            **OFF,
        ),
        r"acts within low = \[-1.0\], the environment within \[-2.0\]",
    ),
    "DQN": (
        lambda: DQN("MlpPolicy", gym.make(CARTPOLE), policy_kwargs=small(), **OFF),
        "continuous actions. Its policy is of stable_baselines3.dqn.policies",
    ),
    "own class": (
        lambda: PPO(OwnPolicy, gym.make("safe/Pendulum-v0")),
        "Its policy is of .*test_sb3_zip. Load it yourself",
    ),
    "own features": (
        lambda: PPO(
            "MlpPolicy",
            gym.make("safe/Pendulum-v0"),
            policy_kwargs={"features_extractor_class": Scaled},
        ),
        "made with policy_kwargs .'features_extractor_class'",
    ),
    "own activation": (
        lambda: PPO(
            "MlpPolicy", gym.make("safe/Pendulum-v0"), policy_kwargs={"activation_fn": nn.Dropout}
        ),
        "has the activation function .*Dropout",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_policies_are_refused(name, env, tmp_path):
    make, message = REFUSED[name]
    make().save(tmp_path / "model.zip")
    with pytest.raises(CheckpointError, match=message) as error:
        load_zip_policy(tmp_path / "model.zip", spaces_of(env))
    assert "\n" not in str(error.value)


def test_discrete_actions_are_refused(tmp_path):
    """As many as there are dimensions, so that the shapes alone would fit."""

    class TwoSided(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (3,))
        action_space = gym.spaces.Discrete(1)

    PPO("MlpPolicy", TwoSided()).save(tmp_path / "model.zip")
    spaces = (TwoSided.observation_space, gym.spaces.Box(-1, 1, (1,)))
    with pytest.raises(CheckpointError, match="holds no MlpPolicy: .*log_std"):
        load_zip_policy(tmp_path / "model.zip", spaces)


def test_what_is_no_zip_is_refused(env, tmp_path):
    with pytest.raises(CheckpointError, match="There is no file"):
        load_zip_policy(tmp_path / "none.zip", spaces_of(env))
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme", "hello")
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as file:
        file.writestr("data", "[1]")
        buffer = io.BytesIO()
        torch.save({}, buffer)
        file.writestr("policy.pth", buffer.getvalue())
    for name in ("text", "other", "list"):
        with pytest.raises(CheckpointError, match="not a zip that Stable-Baselines3 saved"):
            load_zip_policy(tmp_path / f"{name}.zip", spaces_of(env))


def test_statistics_beside_a_zip_are_pointed_to(env, tmp_path):
    MODELS["PPO"](env).save(tmp_path / "model.zip")
    (tmp_path / "vec_normalize.pkl").touch()
    with pytest.warns(UserWarning, match="lies vec_normalize.pkl: if it was trained on normalized"):
        load_zip_policy(tmp_path / "model.zip", spaces_of(env))
