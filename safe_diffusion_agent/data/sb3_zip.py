"""Policies in zips of Stable-Baselines3, read without unpickling anything.

A zip holds the weights (`policy.pth`), which are read as tensors and nothing else, and the document
`data`, where whatever was pickled also stands as text: the module of the policy's class, its
activation function, the bounds of the actions. From text and shapes the policy is built by
Stable-Baselines3's own classes. Only what acts is built: of a TQC, SAC's actor, which is the same.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from safe_diffusion_agent.errors import CheckpointError, warn

Tensors = dict[str, Tensor]
Spaces = tuple[gym.Space[Any], gym.Space[Any]]

# Arguments of policies by what they matter to: their actions, or only their training and critics.
ACTING = {"activation_fn", "use_sde", "full_std", "use_expln", "clip_mean", "squash_output"}
TRAINING = {
    "net_arch",  # the shapes say it
    "log_std_init",  # the weights say it
    "ortho_init",
    "optimizer_class",
    "optimizer_kwargs",
    "normalize_images",  # observations are no images
    "share_features_extractor",
    "n_critics",
    "n_quantiles",
}
ACTIVATION = re.compile(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>")
FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"
INSTEAD = "Load it yourself, and give collect_with a function that acts with it."


@dataclass(frozen=True)
class _Kind:
    """How a class of policies is built.

    Attributes:
        policy_class: The class.
        acts: Prefix of the weights that act; the others are not loaded.
        layers: Pattern of the layers' weights from the observation to the action.
        value_layers: The same from the observation to the value, where it is built, too.
        other: What `net_arch` calls the other network.
    """

    policy_class: Any
    acts: str
    layers: str
    value_layers: str
    other: str


_ACTOR_CRITIC = _Kind(
    ActorCriticPolicy,
    "",
    r"(mlp_extractor\.policy_net\.\d+|action_net)\.weight",
    r"(mlp_extractor\.value_net\.\d+|value_net)\.weight",
    "vf",
)
_SAC = _Kind(SACPolicy, "actor.", r"actor\.(latent_pi\.\d+|mu|mu\.0)\.weight", "$^", "qf")
_TD3 = _Kind(TD3Policy, "actor.", r"actor\.mu\.\d+\.weight", "$^", "qf")
KINDS = {
    "stable_baselines3.common.policies": _ACTOR_CRITIC,
    "stable_baselines3.sac.policies": _SAC,
    "stable_baselines3.td3.policies": _TD3,
    "sb3_contrib.tqc.policies": _SAC,
}


@dataclass(frozen=True)
class ZipPolicy:
    """A policy that was read from a zip.

    Attributes:
        algorithm: What trained it: `"SAC"`, `"PPO"`, ...
        policy: Stable-Baselines3's policy.
        use_sde: Whether its exploration depends on the state (gSDE).
    """

    algorithm: str
    policy: BasePolicy
    use_sde: bool

    def act(self, observations: npt.NDArray[Any], *, deterministic: bool) -> npt.NDArray[Any]:
        """Returns actions `(n, A)` for `(n, O)`, environment units.

        One that is not deterministic draws from PyTorch's global generator; with gSDE, a new
        exploration for every observation.
        """
        if self.use_sde and not deterministic:
            self.policy.reset_noise(len(observations))  # type: ignore[operator]
        return self.policy.predict(observations, deterministic=deterministic)[0]


def load_zip_policy(path: Path, spaces: Spaces) -> ZipPolicy:
    """Reads a policy that acts on vectors through a multilayer perceptron (`MlpPolicy`).

    Of SAC, TQC, TD3, DDPG, PPO, A2C or TRPO. If it was trained on normalized observations
    (`VecNormalize`), their statistics are not in the zip, and it cannot act well.

    Args:
        path: The zip that `model.save` wrote.
        spaces: Observation and action space to act in, one-dimensional Boxes.

    Raises:
        CheckpointError: There is no such file, it is no such zip, or its policy is of another kind
            or for other spaces.
    """
    data, tensors = _read(path)
    module = _text_of(data.get("policy_class"), "__module__")
    if module not in KINDS:
        raise CheckpointError(
            f"{path} should hold an MlpPolicy of SAC, TQC, TD3, DDPG, PPO, A2C or TRPO, with "
            f"continuous actions. Its policy is of {module or 'no known class'}. {INSTEAD}"
        )
    kind = KINDS[module]
    layers, value_layers = (_layers(tensors, p) for p in (kind.layers, kind.value_layers))
    if not layers:
        raise CheckpointError(f"{path} should hold an MlpPolicy. It holds another. {INSTEAD}")
    _check_spaces(path, data, layers, spaces)
    net_arch = {"pi": _widths(layers), kind.other: _widths(value_layers)}
    acting = {k.removeprefix(kind.acts): v for k, v in tensors.items() if k.startswith(kind.acts)}
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
        try:
            arguments = _arguments(path, data)
            policy = kind.policy_class(*spaces, _constant, net_arch=net_arch, **arguments)
            (policy.actor if kind.acts else policy).load_state_dict(acting)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} holds no MlpPolicy: {reason}. {INSTEAD}") from error
    policy.set_training_mode(False)
    places = (path.parent, path.with_suffix(""))  # the zoo's is the second
    if statistics := [file for place in places for file in place.glob("vec*normalize*.pkl")]:
        warn(
            f"Beside {path} lies {statistics[0].name}: if it was trained on normalized "
            f"observations, it cannot act well without them. {INSTEAD}"
        )
    return ZipPolicy(_algorithm(module, data), policy, bool(arguments.get("use_sde")))


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as file:
            data = json.loads(file.read("data"))
            weights = io.BytesIO(file.read("policy.pth"))
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
        items = dict(data), dict(tensors)
    except Exception as error:  # what zipfile and PyTorch raise on foreign bytes is not said
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is not a zip that Stable-Baselines3 saved a model to ({reason})."
        ) from error
    return items


def _text_of(value: Any, name: str) -> Any:
    """Returns an entry of something pickled that the document also shows as text."""
    return value.get(name) if isinstance(value, Mapping) else None


def _layers(tensors: Tensors, pattern: str) -> list[Tensor]:
    return [tensor for name, tensor in tensors.items() if re.fullmatch(pattern, name)]


def _widths(layers: list[Tensor]) -> list[int]:
    return [len(layer) for layer in layers[:-1]]


def _constant(_: float) -> float:
    """The learning rate of a policy that is not trained."""
    return 0.0


def _check_spaces(
    path: Path, data: Mapping[str, Any], layers: list[Tensor], spaces: Spaces
) -> None:
    sizes = {"observations": layers[0].shape[1], "actions": layers[-1].shape[0]}
    for (name, size), space in zip(sizes.items(), spaces, strict=True):
        if space.shape != (size,):
            raise CheckpointError(
                f"{path} is a policy with {name} of shape ({size},). Those of the environment have "
                f"shape {space.shape}."
            )
    for name in ("low", "high"):
        text = str(_text_of(data.get("action_space"), name)).strip("[]").split()
        try:
            trained = np.array(text, np.float64)
        except ValueError:  # an old version did not write it down
            continue
        here = getattr(spaces[1], name)
        if trained.shape == here.shape and not np.allclose(trained, here, rtol=1e-4):
            raise CheckpointError(
                f"{path} acts within {name} = {trained.tolist()}, the environment within "
                f"{here.tolist()}. Wrap the environment in gymnasium.wrappers.RescaleAction."
            )


def _arguments(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the policy's class that its actions depend on."""
    given = {k: v for k, v in (data.get("policy_kwargs") or {}).items() if not k.startswith(":")}
    if given.get("features_extractor_class") == FLATTEN:
        del given["features_extractor_class"]
    given["use_sde"] = bool(data.get("use_sde", given.get("use_sde", False)))
    unknown = sorted(given.keys() - ACTING - TRAINING)
    if unknown:
        raise CheckpointError(f"{path} was made with policy_kwargs {unknown}. {INSTEAD}")
    acting = {name: value for name, value in given.items() if name in ACTING}
    if not acting["use_sde"]:
        del acting["use_sde"]  # not all classes know it
    if "activation_fn" in acting:
        match = ACTIVATION.fullmatch(str(acting["activation_fn"]))
        if match is None or match[1] not in nn.modules.activation.__all__:
            name = acting["activation_fn"]
            raise CheckpointError(f"{path} has the activation function {name}. {INSTEAD}")
        acting["activation_fn"] = getattr(nn.modules.activation, match[1])
    return acting


def _algorithm(module: str, data: Mapping[str, Any]) -> str:
    if module == "stable_baselines3.common.policies":
        return "PPO" if "clip_range" in data else "TRPO" if "cg_max_steps" in data else "A2C"
    if module == "stable_baselines3.td3.policies":
        return "DDPG" if _text_of(data.get("policy_kwargs"), "n_critics") == 1 else "TD3"
    return module.split(".")[1].upper()
