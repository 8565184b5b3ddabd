"""What an agent knows of its task. It comes from the dataset, and travels with the checkpoint."""

from dataclasses import dataclass
from typing import Any

from safe_diffusion_agent.data import Episodes


@dataclass(frozen=True, kw_only=True)
class Task:
    """The task an agent was trained for.

    Attributes:
        env_id: Gymnasium id, or None if the dataset has no environment.
        obs_dim: O.
        act_dim: A.
        action_low: Lower bounds of the action space, one per dimension.
        action_high: Upper bounds.
        max_episode_steps: Time limit of an episode, or None.
        cost_discount: gamma_c of the task's budgets.
        max_budget: The largest budget of the evaluation protocol, in cost units.
        dataset_id: Minari id.
        dataset_fingerprint: Digest of the transitions.
    """

    env_id: str | None
    obs_dim: int
    act_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int | None
    cost_discount: float
    max_budget: float
    dataset_id: str
    dataset_fingerprint: str

    @classmethod
    def of(cls, episodes: Episodes) -> "Task":
        """The task of a dataset."""
        return cls(
            env_id=episodes.env_id,
            obs_dim=episodes.observations.shape[1],
            act_dim=episodes.actions.shape[1],
            action_low=tuple(episodes.action_low.tolist()),
            action_high=tuple(episodes.action_high.tolist()),
            max_episode_steps=episodes.max_episode_steps,
            cost_discount=episodes.cost_discount,
            max_budget=episodes.max_budget,
            dataset_id=episodes.dataset_id,
            dataset_fingerprint=episodes.fingerprint,
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Task":
        """Rebuilds a task from `dataclasses.asdict` that went through JSON."""
        bounds = {name: tuple(document[name]) for name in ("action_low", "action_high")}
        return cls(**(document | bounds))
