"""`RecordEpisodes`: records whatever loop the user has, as a Minari dataset with costs.

Finished episodes are written to a hidden folder beside the datasets every so many steps; `close`
makes a dataset of them. A process that was killed before has lost what it had not written, and no
more: the folder is continued with `extend=True`.
"""

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.data.facts import check_spaces, env_id_of, facts_of
from safe_diffusion_agent.data.recording import Episode, Transcript, read_episodes, save_episodes
from safe_diffusion_agent.data.writing import check_id, stored_metadata, write_dataset
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import provenance, write_text

INTERVAL = 1_000
KEPT = ("max_budget", "max_budget_source")  # metadata that `trebi max-budget` added


class RecordEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Records every step, whoever acts, and writes a Minari dataset when it is closed.

    An episode that `reset` or `close` interrupts is cut there: it is marked as truncated, and as
    `cut` in its metadata. It has cost less than a whole one would have.

    Args:
        env: Environment with `info["cost"]`; its spaces are one-dimensional Boxes.
        dataset_id: Minari id.
        extend: Adds to a dataset that was recorded before, or to what a killed process left.
        keep_cut: Whether episodes that were cut are stored.
        env_id: Gymnasium id to store with the dataset. None takes the environment's, if it was not
            wrapped after it was made.
        cost_discount: gamma_c to store. None takes the task's, or 1.
        max_episode_steps: Time limit to store. None takes the environment's, if it has one.
        metadata: Further JSON values to store, such as `{"algorithm": "our controller"}`.
        interval: Steps after which the episodes that are finished are written to disk.

    Raises:
        DatasetError: The id is taken or none, another process records under it, or the environment
            is not the one that was recorded before.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        dataset_id: str,
        *,
        extend: bool = False,
        keep_cut: bool = True,
        env_id: str | None = None,
        cost_discount: float | None = None,
        max_episode_steps: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        interval: int = INTERVAL,
    ):
        super().__init__(env)
        check_id(dataset_id)
        check_spaces(env)
        self.dataset_id = dataset_id
        self._keep_cut, self._interval = keep_cut, interval
        self._env_id = env_id or env_id_of(env)
        self._facts = facts_of(env, cost_discount) | dict(metadata or {})
        if max_episode_steps is not None:
            self._facts["max_episode_steps"] = max_episode_steps
        json.dumps(self._facts)  # what cannot be stored is refused now
        self._folder = _folder_of(dataset_id)
        self._old = self._check_old(extend)
        self._token = self._open_folder(extend)
        self._current: Transcript | None = None
        self._seed: int | None = None
        self._finished: list[Episode] = []
        self._unsaved = 0
        self._closed = False

    @property
    def num_episodes(self) -> int:
        """Episodes that this recording would store, were it closed now between two episodes."""
        saved = sum(1 for path in self._files() for _ in read_episodes(path))
        return saved + len(self._finished)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts the next episode; one that has not ended is cut."""
        self._cut()
        observation, info = self.env.reset(seed=seed, options=options)
        self._current, self._seed = Transcript(observation), seed
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and records.

        Raises:
            DatasetError: There was no reset, the cost is missing, or a number is NaN or infinite;
                the step is not recorded then, and what was before it is.
        """
        if self._current is None:
            raise DatasetError("The episode has ended, or none has begun: call reset first.")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._current.add(action, observation, reward, terminated, truncated, info)
        if terminated or truncated:
            self._finish(cut=False)
        return observation, reward, bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Cuts the current episode, writes the dataset, and closes the environment.

        Raises:
            DatasetError: There is no episode to store.
        """
        try:
            if not self._closed:
                self._closed = True
                self._cut()
                self._save()
                self._write()
                shutil.rmtree(self._folder)
        finally:
            self._lock.close()
            super().close()

    def _cut(self) -> None:
        if self._current and self._keep_cut:
            self._current.cut()
            self._finish(cut=True)
        self._current = None

    def _finish(self, *, cut: bool) -> None:
        assert self._current is not None
        labels = {"cut": np.array(cut)}
        if self._seed is not None:
            labels["seed"] = np.array(self._seed)
        self._finished.append(self._current.episode() | labels)
        self._unsaved += len(self._current)
        self._current = self._seed = None
        if self._unsaved >= self._interval:
            self._save()

    def _save(self) -> None:
        if self._finished:
            save_episodes(self._folder / f"episodes-{len(self._files()):06d}.npz", self._finished)
            self._finished, self._unsaved = [], 0

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("episodes-*.npz"))

    def _write(self) -> None:
        files = self._files()
        if not files:
            if self._old:
                return
            shutil.rmtree(self._folder)
            raise DatasetError(
                f"There is no episode to store as {self.dataset_id!r}: an episode has at least one "
                "step."
            )
        new = chain.from_iterable(map(read_episodes, files))
        old = _stored_episodes(self.dataset_id) if self._old else iter(())
        metadata = {
            "algorithm": "recorded",
            **{name: self._old[name] for name in KEPT if name in self._old},
            **self._facts,
            "recordings": [
                *self._old.get("recordings", []),
                {"token": self._token, "provenance": provenance()},
            ],
            "recorded_spaces": self._spaces(),
        }
        spaces = (self.observation_space, self.action_space)
        write_dataset(
            self.dataset_id,
            self._env_id,
            chain(old, new),
            metadata,
            spaces=None if self._env_id else spaces,
        )

    def _spaces(self) -> dict[str, Any]:
        """Returns what recordings of one dataset have in common, as JSON values."""
        space: Any = self.action_space
        return {
            "observation_shape": list(self.observation_space.shape or ()),
            "action_low": space.low.tolist(),
            "action_high": space.high.tolist(),
            "cost_discount": self._facts["cost_discount"],
        }

    def _check_old(self, extend: bool) -> dict[str, Any]:
        """Returns the metadata of the dataset that is extended; none if there is no dataset."""
        if not get_dataset_path(self.dataset_id).exists():
            return {}
        if not extend:
            raise DatasetError(
                f"The dataset {self.dataset_id!r} exists. Choose another id, or add to it with "
                "extend=True."
            )
        old = stored_metadata(self.dataset_id)
        if "recorded_spaces" not in old:
            raise DatasetError(
                f"The dataset {self.dataset_id!r} was not recorded by RecordEpisodes, and cannot "
                "be extended. Choose another id."
            )
        self._check_same(old["recorded_spaces"])
        return old

    def _check_same(self, before: dict[str, Any]) -> None:
        if before != self._spaces():
            raise DatasetError(
                f"What was recorded as {self.dataset_id!r} is of another environment: "
                f"{difference(before, self._spaces())}. Choose another id."
            )

    def _open_folder(self, extend: bool) -> str:
        """Locks the folder, and returns its token, which tells one recording from the next."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "lock").open("w")  # freed when the process ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._begin(extend)
        except BlockingIOError:
            self._lock.close()
            raise DatasetError(
                f"{self.dataset_id!r} is being recorded already: close the other environment first."
            ) from None
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, extend: bool) -> str:
        document = self._folder / "recording.json"
        before: dict[str, Any] = {"token": None}
        if document.exists():
            before = json.loads(document.read_text())
        if before["token"] in [one["token"] for one in self._old.get("recordings", [])]:
            for path in self._files():  # it was killed after it had written the dataset
                path.unlink()
        if self._files():
            if not extend:
                raise DatasetError(
                    f"A recording of {self.dataset_id!r} was interrupted. Continue it with "
                    f"extend=True, or delete {self._folder}."
                )
            self._check_same(before["spaces"])
            return str(before["token"])
        token = secrets.token_hex(8)
        write_text(document, json.dumps({"token": token, "spaces": self._spaces()}))
        return token


def _folder_of(dataset_id: str) -> Path:
    root: Path = get_dataset_path()
    return root / f".recording-{dataset_id.replace('/', '-')}"


def _stored_episodes(dataset_id: str) -> Iterator[Episode]:
    """Returns the episodes of a recorded dataset, as they were recorded."""
    dataset = minari.load_dataset(dataset_id)  # now: it is looked for elsewhere during the writing
    labels = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    return (
        {
            "observations": episode.observations,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "costs": episode.infos["cost"][1:],
            "terminations": episode.terminations,
            "truncations": episode.truncations,
            **{name: np.array(of[name]) for name in ("cut", "seed") if name in of},
        }
        for episode, of in zip(dataset.iterate_episodes(), labels, strict=True)
    )
