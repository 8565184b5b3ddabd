"""A rule to be measured by: stand still while the budget is short, and else be the data's expert.

Where budgets are discounted, a remaining budget grows while nothing is spent. The rule stands still
until it is as large as what the expert's dearest episode cost, and is the expert from then on.
Where they are plain sums, it is the expert until the budget is nearly spent, and stands still from
then on; what is kept back is what it costs to come to a stop. The rule knows the expert and its
costs, which no agent is told; it knows no other policy, and nothing of falls.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.data.levels import (
    MEASURED_EPISODES,
    MEASURED_SEED_OFFSET,
    expert_id,
    read_expert,
)
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.data.writing import stored_metadata
from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_policy
from safe_diffusion_agent.evaluation.rollout import Progress, rollout
from safe_diffusion_agent.evaluation.tables import Evaluated, read_episodes
from safe_diffusion_agent.experiments.jobs import Job, Settings
from safe_diffusion_agent.storage import csv_of, provenance, read_json, write_text
from safe_envs import task_spec

Array = npt.NDArray[Any]


class WaitAndAct:
    """Stands still before, or after, it is the expert.

    Args:
        act: The expert, from observations `(n, O)` to actions `(n, A)`.
        threshold: Remaining budget at which it changes, in cost units.
        waits: Whether it stands still first; else it does so from the threshold on.
    """

    def __init__(self, act: Any, threshold: float, *, waits: bool):
        self._act, self._threshold, self._waits = act, threshold, waits
        self._changed = np.zeros(0, bool)

    def __call__(self, observations: Array, budgets: Array, _: Array) -> Array:
        """Returns actions `(n, A)`; environments are the same in every call."""
        if len(self._changed) == 0:
            self._changed = np.zeros(len(budgets), bool)
        reached = budgets >= self._threshold if self._waits else budgets <= self._threshold
        self._changed |= reached
        actions: Array = np.array(self._act(observations))
        actions[self._changed != self._waits] = 0.0
        return actions


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rule of one dataset, and its evaluation.

    Attributes:
        dataset: It has an expert.
        dataset_id: Minari id; its maximum budget counts where the evaluation has none.
        evaluation: Arguments of `EvaluationConfig`.
        folder: Of the results.
    """

    dataset: CollectConfig
    dataset_id: str
    evaluation: Settings
    folder: Path

    @property
    def label(self) -> str:
        """What it does, in words."""
        return "wait, then the expert" if self._waits else "the expert, then stop"

    def job(self) -> Job:
        """Returns the job that evaluates it."""
        name = f"{self.label}, {self.dataset_id}"
        return Job(name=name, group=str(self.folder), is_done=self.is_done, run=self.run)

    def is_done(self) -> bool:
        """Whether the results are there, and of this rule."""
        path = self.folder / "results.json"
        return path.exists() and read_json(path)["rule"] == self._identity()

    def run(self, progress: Progress | None = None) -> None:
        """Measures the expert on start states of its own, and evaluates the rule."""
        identity = self._identity()
        with one_thread():
            threshold = self._threshold()
            results = evaluate_policy(
                WaitAndAct(self._act, threshold, waits=self._waits),
                self.dataset.env_id,
                EvaluationConfig(**identity["evaluation"]),
                progress=progress,
            )
        document = {"rule": identity, "threshold": threshold, "provenance": provenance()}
        write_text(self.folder / "episodes.csv", csv_of([asdict(result) for result in results]))
        write_text(self.folder / "results.json", json.dumps(document, indent=2) + "\n")

    def evaluated(self, task: str) -> Evaluated:
        """Returns its episodes, as of one training."""
        episodes = read_episodes(self.folder / "episodes.csv")
        return Evaluated(
            task=task, method=self.label, seed=1000 * self.dataset.seed, episodes=episodes
        )

    @property
    def _waits(self) -> bool:
        return task_spec(self.dataset.env_id).cost_discount < 1.0

    def _identity(self) -> dict[str, Any]:
        assert self.dataset.expert is not None
        config = EvaluationConfig(**self.evaluation)
        if config.max_budget is None:
            config = replace(config, max_budget=stored_metadata(self.dataset_id)["max_budget"])
        values = {
            "expert": expert_id(self.dataset.expert),
            "task": self.dataset.env_id,
            "evaluation": asdict(config),
        }
        identity: dict[str, Any] = json.loads(json.dumps(values))
        return identity

    @cached_property
    def _act(self) -> Any:
        policy = read_expert(str(self.dataset.expert), self.dataset.env_id)
        return partial(policy.act, deterministic=True)

    def _threshold(self) -> float:
        """The most that an episode of the expert cost, or that it cost to stop in the middle."""
        limit = task_spec(self.dataset.env_id).max_episode_steps
        seeds = [MEASURED_SEED_OFFSET + k for k in range(MEASURED_EPISODES)]
        budgets = np.full(len(seeds), np.inf)
        if self._waits:
            run = rollout(self._policy(limit), self.dataset.env_id, budgets, seeds)
            discount = task_spec(self.dataset.env_id).cost_discount
            return float(discounted_sum(run.costs, discount).max())
        run = rollout(self._policy(limit // 2), self.dataset.env_id, budgets, seeds)
        return float(run.costs[limit // 2 :].sum(0).max())

    def _policy(self, num_steps: int) -> Any:
        """The expert for so many steps, then nothing."""
        limit = task_spec(self.dataset.env_id).max_episode_steps

        def policy(observations: Array, _: Array, remaining_steps: Array) -> Array:
            actions: Array = np.array(self._act(observations))
            actions[limit - remaining_steps >= num_steps] = 0.0
            return actions

        return policy
