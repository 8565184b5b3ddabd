"""What can act in a collection: zips of Stable-Baselines3, our agents, functions, chance."""

import hashlib
import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.mixing import Act, check_actions
from safe_diffusion_agent.data.recording import episode_seed
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.table import load_agent, method_of
from safe_diffusion_agent.storage import agent_file, pretrained_names

Array = npt.NDArray[Any]
RANDOM = "random"
NUM_PROBES = 4  # start states at which a policy without a file is told from another


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """A policy that acts in a collection, and how.

    Attributes:
        policy: The path of a zip that Stable-Baselines3 saved a model to; the folder of one of our
            agents, or the name of a pretrained one; `"random"`, for uniform actions;
            `"module:function"`; or an object: an agent, a model of Stable-Baselines3, or a function
            from observations `(n, O)` to actions `(n, A)`.
        share: Of the steps, relative to the shares of the others.
        noise: Standard deviation of the Gaussian noise that is added to every action, as a share
            of half the range of actions.
        deterministic: Whether a policy of Stable-Baselines3 takes the mode of its distribution,
            and an agent the same random numbers in every step.
        budget: Of every episode, in cost units, for an agent. None takes its largest.
    """

    policy: Any
    share: float = 1.0
    noise: float = 0.0
    deterministic: bool = False
    budget: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share > 0.0):
            raise ValueError(f"The share of a policy should be positive. Received {self.share}.")
        if not (math.isfinite(self.noise) and self.noise >= 0.0):
            raise ValueError(f"noise should be a number of 0 or more. Received {self.noise}.")
        if self.budget is not None and math.isnan(self.budget):
            raise ValueError("budget should be a number, or math.inf. Received NaN.")


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A policy that is ready to act.

    Attributes:
        name: Of the file, the agent or the function.
        algorithm: What made it.
        act: See `data.mixing.Source`.
        origin: JSON values that tell it from another: the SHA-256 of its file, or of its actions.
        budget: What an agent is told at the start of an episode, in cost units.
        about: Further JSON values.
    """

    name: str
    algorithm: str
    act: Act
    origin: dict[str, Any] = field(default_factory=dict)
    budget: float = math.inf
    about: dict[str, Any] = field(default_factory=dict)


def actor_of(behavior: Behavior, env: gym.Env[Any, Any]) -> Actor:
    """Returns the policy of a behavior, ready to act in an environment.

    Args:
        behavior: Who acts.
        env: With one-dimensional Boxes; a policy that has no file is asked at its first states.

    Raises:
        UnknownNameError: There is no such policy.
        CheckpointError: A file is no policy, or is one for other spaces.
        ValueError: An agent or an object is for other spaces, or an option has no effect on it.
    """
    policy, space = behavior.policy, env.action_space
    assert isinstance(space, gym.spaces.Box)
    bounded = bool(np.isfinite([space.low, space.high]).all())
    if not bounded and (behavior.noise or policy == RANDOM):
        raise ValueError(f"Noise and random actions need bounds of the actions. They are {space}.")
    if isinstance(policy, str | os.PathLike):
        actor = _named(os.fspath(policy), behavior, env)
    else:
        actor = _probed(_object(policy, behavior, env), env)
    if behavior.budget is not None and "budget" not in actor.about:
        raise ValueError(f"A budget has no effect on {actor.name}: only agents keep one.")
    return actor


def _named(name: str, behavior: Behavior, env: gym.Env[Any, Any]) -> Actor:
    path = Path(name)
    if name == RANDOM:
        return Actor(name=RANDOM, algorithm="uniform actions", act=partial(_random, env))
    if path.is_dir() or name in pretrained_names():
        actor = _agent(load_agent(name), path.resolve().name, behavior, env)
        return _with_origin(actor, {"sha256": _sha256(agent_file(name))})
    if path.is_file() or path.suffix == ".zip":
        from safe_diffusion_agent.data.sb3_zip import load_zip_policy

        loaded = load_zip_policy(path, (env.observation_space, env.action_space))
        act = partial(_predicted, loaded.act, behavior.deterministic)
        origin = {"sha256": _sha256(path)}
        return Actor(name=path.name, algorithm=loaded.algorithm, act=act, origin=origin)
    module, _, attribute = name.rpartition(":")
    if not module:
        known = [RANDOM, *pretrained_names()]
        raise UnknownNameError(
            "zip of Stable-Baselines3, folder of an agent, or policy", name, known
        )
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"A policy should be a file, or module:function. Received {name!r}: {error}."
        ) from error
    return _probed(_object(function, behavior, env), env)


def _object(policy: Any, behavior: Behavior, env: gym.Env[Any, Any]) -> Actor:
    if isinstance(policy, Agent):
        return _agent(policy, policy.method, behavior, env)
    kind = type(policy).__name__
    if hasattr(policy, "predict"):

        def predict(observations: Array, *, deterministic: bool) -> Array:
            actions: Array = policy.predict(observations, deterministic=deterministic)[0]
            return actions

        act = partial(_predicted, predict, behavior.deterministic)
        return Actor(name=kind, algorithm=kind, act=act)
    if not callable(policy):
        raise ValueError(
            "A policy should be a path, a name, an agent, a model with predict, or a function from "
            f"observations to actions. Received {policy!r}."
        )
    name = getattr(policy, "__qualname__", kind)
    return Actor(name=name, algorithm="function", act=lambda observations, *_: policy(observations))


def _agent(agent: Agent, name: str, behavior: Behavior, env: gym.Env[Any, Any]) -> Actor:
    sizes = ((agent.task.obs_dim,), (agent.task.act_dim,))
    if sizes != (env.observation_space.shape, env.action_space.shape):
        raise ValueError(
            f"The agent {name} has observations and actions of shape {sizes}. Those of the "
            f"environment have {(env.observation_space.shape, env.action_space.shape)}."
        )
    about: dict[str, Any] = {}
    budget = math.inf
    if method_of(agent.method).constrained:
        budget = agent.task.max_budget if behavior.budget is None else behavior.budget
        about = {"budget": budget}
        agent = agent.for_budget(budget)

    def act(observations: Array, budgets: Array, steps: Array) -> Array:
        # The recording seeds PyTorch's generator, round by round.
        generator = agent.new_generator() if behavior.deterministic else torch.default_generator
        return agent.act(observations, budgets, steps, generator=generator)

    algorithm = f"{agent.method}, preset {agent.config.preset}"
    told = budget * agent.budget_scale
    return Actor(name=name, algorithm=algorithm, act=act, budget=told, about=about)


def _predicted(
    predict: Callable[..., Array], deterministic: bool, observations: Array, *_: Any
) -> Array:
    return predict(observations, deterministic=deterministic)


def _random(env: gym.Env[Any, Any], observations: Array, *_: Any) -> Array:
    space: Any = env.action_space
    uniform = torch.rand((len(observations), *space.shape), dtype=torch.float64).numpy()
    actions: Array = space.low + uniform * (space.high - space.low)
    return actions


def _probed(actor: Actor, env: gym.Env[Any, Any]) -> Actor:
    """Tells a policy that has no file by what it does at the first states of episodes."""
    states = np.stack([env.reset(seed=episode_seed(0, k))[0] for k in range(NUM_PROBES)])
    limit = getattr(env.spec, "max_episode_steps", None) or 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        budgets, steps = np.full(len(states), actor.budget), np.full(len(states), limit)
        actions = np.asarray(actor.act(states, budgets, steps))
    assert isinstance(env.action_space, gym.spaces.Box)
    check_actions(actor.name, actions, len(states), env.action_space)
    digest = hashlib.sha256(actions.astype(np.float64).tobytes()).hexdigest()
    return _with_origin(actor, {"actions_sha256": digest})


def _with_origin(actor: Actor, origin: dict[str, Any]) -> Actor:
    return Actor(**(vars(actor) | {"origin": origin}))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
