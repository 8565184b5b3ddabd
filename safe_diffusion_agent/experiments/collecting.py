"""`collect_with`: episodes of policies that the user brings, as a Minari dataset with costs."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.data.facts import check_spaces, env_id_of, facts_of
from safe_diffusion_agent.data.mixing import Mixture, Source
from safe_diffusion_agent.data.recording import NUM_ENVS, Progress
from safe_diffusion_agent.data.writing import check_id, is_made, write_dataset
from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.experiments.policies import Actor, Behavior, actor_of
from safe_diffusion_agent.storage import provenance

Envs = str | Callable[[], gym.Env[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection that can be run.

    Attributes:
        dataset_id: Minari id.
        config: JSON values: all that the episodes depend on.
        facts: What the dataset says of the environment.
        spaces: Observation and action space.
        mixture: Who acts, in what.
    """

    dataset_id: str
    config: dict[str, Any]
    facts: dict[str, Any]
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    mixture: Mixture

    def run(self, progress: Progress | None = None) -> None:
        """Records what is missing, writes the dataset, and forgets what was for continuing.

        Args:
            progress: Called as `progress(done, total)`, in steps.
        """
        with one_thread():
            policies = self._record(progress)
            means = {
                name: float(np.average([p[name] for p in policies], weights=_counts(policies)))
                for name in ("mean_return", "mean_cost")
            }
            names = " + ".join(described(policy) for policy in policies)
            several = len(policies) > 1
            behavior = {"name": f"{len(policies)} policies" if several else names, **means}
            metadata = {
                "algorithm": names,
                "collect_config": self.config,
                **self.facts,
                "policies": policies,
                "behavior_policy": behavior | {"num_episodes": sum(_counts(policies))},
                "provenance": provenance(),
            }
            write_dataset(
                self.dataset_id,
                self.config["env_id"],
                self.mixture.episodes(),
                metadata,
                spaces=None if self.config["env_id"] else self.spaces,
            )
        shutil.rmtree(self.mixture.folder, ignore_errors=True)

    def _record(self, progress: Progress | None) -> list[dict[str, Any]]:
        """Records all episodes; returns what each policy is and did."""
        sums = [np.zeros(4) for _ in self.mixture.sources]
        for episode in self.mixture.episodes(progress):
            costs = discounted_sum(episode["costs"], self.mixture.cost_discount)
            num_steps = len(episode["rewards"])
            sums[int(episode["policy"])] += [1, num_steps, episode["rewards"].sum(), float(costs)]
        return [
            policy
            | {
                "num_episodes": int(count),
                "num_steps": int(steps),
                "mean_return": returns / max(count, 1.0),
                "mean_cost": costs / max(count, 1.0),
            }
            for policy, (count, steps, returns, costs) in zip(
                self.config["policies"], sums, strict=True
            )
        ]


def collect_with(
    policies: Any,
    env: Envs,
    *,
    num_steps: int = 20_000,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    cost_discount: float | None = None,
    dataset_id: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Lets policies act, and stores their episodes as a Minari dataset with costs.

    A dataset that the same call already made is kept, and a collection that was interrupted
    continues to the same dataset.

    Args:
        policies: A policy, or several: `Behavior`s, or what `Behavior.policy` may be.
        env: Id of an environment with `info["cost"]` and a time limit, or a function that makes it.
        num_steps: At least so many steps; episodes are whole.
        seed: Fixes the collection, on one machine, if what the policies draw comes from PyTorch's
            global generator.
        num_envs: Environments in lockstep: each call of a policy acts in so many.
        cost_discount: gamma_c. None takes the task's, or 1.
        dataset_id: Minari id. None takes `default_own_id`.
        state_dir: Folder for what is needed to continue after an interruption.
        overwrite: Replaces a dataset of that id that something else made.
        progress: Called as `progress(done, total)`, in steps.

    Returns:
        The id of the dataset. Its metadata say who acted (`policies`: file, SHA-256, algorithm,
        share, noise, mean return and cost), and which policy and seed each episode has.

    Raises:
        DatasetError: The id is taken by a dataset that something else made, or the environment
            gives no cost, or the policy no action.
        CheckpointError: A file is no policy, or is one for other spaces.
        UnknownNameError: There is no such policy.
        ValueError: A share, noise, budget or number is out of range.
    """
    collection = plan_collection(
        policies,
        env,
        num_steps=num_steps,
        seed=seed,
        num_envs=num_envs,
        cost_discount=cost_discount,
        dataset_id=dataset_id,
        state_dir=state_dir,
    )
    if not is_made(collection.dataset_id, collection.config, overwrite=overwrite):
        collection.run(progress)
    return collection.dataset_id


def plan_collection(
    policies: Any,
    env: Envs,
    *,
    num_steps: int = 20_000,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    cost_discount: float | None = None,
    dataset_id: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
) -> Collection:
    """Returns what `collect_with` runs; its arguments and errors are the same."""
    for name, number in {"num_steps": num_steps, "num_envs": num_envs}.items():
        if number < 1:
            raise ValueError(f"{name} should be positive. Received {number}.")
    behaviors, make_env = _behaviors(policies), _maker(env)
    sample = make_env()
    check_spaces(sample)
    facts = facts_of(sample, cost_discount)
    if "max_episode_steps" not in facts:
        raise DatasetError(
            "The environment should have a time limit: register it with max_episode_steps, or wrap "
            "it in gymnasium.wrappers.TimeLimit."
        )
    dataset_id = dataset_id or default_own_id(env_id_of(sample))
    check_id(dataset_id)
    actors = [actor_of(behavior, sample) for behavior in behaviors]
    sample.close()
    pairs = list(zip(behaviors, actors, strict=True))
    total = sum(behavior.share for behavior in behaviors)
    config = {
        "env_id": env_id_of(sample),
        "num_steps": num_steps,
        "seed": seed,
        "num_envs": num_envs,
        "cost_discount": facts["cost_discount"],
        "policies": [_identity(behavior, actor, total) for behavior, actor in pairs],
    }
    digest = hashlib.sha256(json.dumps(config | facts).encode()).hexdigest()[:16]
    root = Path("runs") / "collections" if state_dir is None else Path(state_dir)
    mixture = Mixture(
        sources=[_source(behavior, actor) for behavior, actor in pairs],
        make_env=make_env,
        max_episode_steps=facts["max_episode_steps"],
        cost_discount=facts["cost_discount"],
        num_steps=num_steps,
        seed=seed,
        num_envs=num_envs,
        folder=root / f"own-policies-{digest}",
    )
    return Collection(
        dataset_id=dataset_id,
        config=config,
        facts=facts,
        spaces=(sample.observation_space, sample.action_space),
        mixture=mixture,
    )


def _behaviors(policies: Any) -> list[Behavior]:
    several = isinstance(policies, Sequence) and not isinstance(policies, str)
    behaviors = [
        one if isinstance(one, Behavior) else Behavior(policy=one)
        for one in (policies if several else [policies])
    ]
    if not behaviors:
        raise ValueError("Give at least one policy.")
    return behaviors


def _source(behavior: Behavior, actor: Actor) -> Source:
    return Source(
        name=actor.name,
        act=actor.act,
        share=behavior.share,
        noise=behavior.noise,
        budget=actor.budget,
    )


def default_own_id(env_id: str | None) -> str:
    """Returns a Minari id for a task: `safe-envs/pendulum/own-policies-v0`.

    Raises:
        ValueError: The environment has no id.
    """
    if env_id is None:
        raise ValueError("The environment has no id of its own: give dataset_id.")
    namespace, _, name = env_id.rpartition(":")[2].rpartition("/")
    namespace = "safe-envs" if namespace == "safe" else namespace or "gymnasium"
    return f"{namespace}/{name.rpartition('-v')[0] or name}/own-policies-v0".lower()


def described(policy: dict[str, Any]) -> str:
    """Returns who acted in words: `SAC: sac.zip (share 0.5, noise 0.1)`."""
    facts = [f"share {policy['share']:.3g}"]
    facts += ["deterministic"] * policy["deterministic"]
    facts += [f"{name} {policy[name]:g}" for name in ("noise", "budget") if policy.get(name)]
    return f"{policy['algorithm']}: {policy['name']} ({', '.join(facts)})"


def _identity(behavior: Behavior, actor: Actor, total: float) -> dict[str, Any]:
    return {
        "name": actor.name,
        "algorithm": actor.algorithm,
        **actor.origin,
        "share": behavior.share / total,
        "noise": behavior.noise,
        "deterministic": bool(behavior.deterministic),
        **actor.about,
    }


def _counts(policies: list[dict[str, Any]]) -> list[int]:
    return [policy["num_episodes"] for policy in policies]


def _maker(env: Envs) -> Callable[[], gym.Env[Any, Any]]:
    if isinstance(env, gym.Env):
        raise ValueError(
            "env should be the id of an environment, or a function that makes it, because several "
            f"are needed. Received {env}."
        )
    return partial(gym.make, env) if isinstance(env, str) else env
