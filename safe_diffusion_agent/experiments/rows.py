"""What a study is: rows, each of them one training and one evaluation, and their scale."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.manifest import BY_EXPERTS, MANIFEST, capped
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.rollout import Progress
from safe_diffusion_agent.experiments.jobs import Settings, config_values
from safe_diffusion_agent.experiments.stages import train
from safe_diffusion_agent.methods.table import METHODS, load_agent
from safe_envs import task_spec


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training with one evaluation of its agent.

    Attributes:
        label: Its name in figures and tables.
        dataset: What to collect.
        method: One of `METHODS`.
        preset: Of the method; empty: the scale's.
        settings: Settings of the training that differ from the preset's.
        load_settings: Settings that the trained agent is loaded with.
        evaluation: Arguments of `EvaluationConfig` that differ from the scale's; the seed of the
            start states is that of the training unless it is one of them.
        seed: Of the training; None stands for every seed of the scale.
        parts: Names of `trust.PARTS`, which are measured in place of an evaluation.
    """

    label: str
    dataset: CollectConfig
    method: str = "trebi"
    preset: str = ""
    settings: Settings = field(default_factory=dict)
    load_settings: Settings = field(default_factory=dict)
    evaluation: Settings = field(default_factory=dict)
    seed: int | None = None
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method and, where the row has one, its preset."""
        return f"{self.method}:{self.preset}" if self.preset else self.method

    @property
    def task(self) -> str:
        """Task and quality of the dataset; datasets of several seeds are one task."""
        return f"{self.dataset.env_id} {self.dataset.quality}"

    def config_values(self) -> Any:
        """Returns the config of the loaded agent as JSON values."""
        settings = {**self.settings, **self.load_settings}
        return config_values(self.method, self.preset, self.dataset.env_id, settings)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is.

    Attributes:
        preset: Of rows that name none.
        seeds: Of the trainings.
        num_episodes: Per budget and seed; with random budgets, 100 in all.
        max_steps: Steps of a dataset, and of SAC, are cut to this.
    """

    preset: str = "quick"
    seeds: tuple[int, ...] = (0,)
    num_episodes: int = 20
    max_steps: int | None = None


SCALES: dict[str, Scale] = {
    "small": Scale(max_steps=20_000),
    "paper": Scale(preset="paper", seeds=(0, 1, 2), num_episodes=60),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question that rows answer.

    Attributes:
        title: What it shows.
        rows: The rows.
        scale: How large it is. None: as large as is asked for, as the figures of the paper are.
        paired: Whether rows are compared with the first one, start state by start state.
    """

    title: str
    rows: tuple[Row, ...]
    scale: Scale | None = None
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is made of a study; None is what the study says.

    Attributes:
        scale: One of `SCALES`, for a study that has none of its own: `"small"`, unless it is given.
        tasks: Only these tasks.
        qualities: Only datasets of these qualities.
        methods: These methods instead, as `method` or `method:preset`, each in all rows of the
            study's first one.
        seeds: Of the trainings.
        num_episodes: Per budget and seed; with random budgets, in all.
        max_steps: Datasets, and their SAC, are cut to so many steps.
    """

    scale: str | None = None
    tasks: Sequence[str] | None = None
    qualities: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    num_episodes: int | None = None
    max_steps: int | None = None

    def scale_of(self, study: Study) -> Scale:
        """Returns how large a study is made.

        Raises:
            UnknownNameError: There is no such scale.
            ValueError: A scale is given, and the study has its own.
        """
        if self.scale is not None and self.scale not in SCALES:
            raise UnknownNameError("scale", self.scale, SCALES)
        if self.scale is not None and study.scale is not None:
            raise ValueError(
                f"{study.title!r} has a scale of its own: choose seeds, episodes and max-steps "
                "instead of a scale."
            )
        scale = study.scale or SCALES[self.scale or "small"]
        given: dict[str, Any] = {
            "seeds": None if self.seeds is None else tuple(self.seeds),
            "num_episodes": self.num_episodes,
            "max_steps": self.max_steps,
        }
        return replace(scale, **{name: of for name, of in given.items() if of is not None})

    def rows_of(self, study: Study) -> list[Row]:
        """Returns the rows, with all that the scale says filled in; checks their settings.

        Raises:
            UnknownNameError: There is no such method, preset, setting, task or scale.
            ValueError: The study has none of these datasets, or a method does not plan so far.
        """
        wanted = None if self.tasks is None else [task_spec(task).id for task in self.tasks]
        rows = [
            row
            for row in study.rows
            if (wanted is None or row.dataset.env_id in wanted)
            and (self.qualities is None or row.dataset.quality in self.qualities)
        ]
        if not rows:
            known = ", ".join(dict.fromkeys(row.task for row in study.rows))
            raise ValueError(f"The study has none of these datasets. It has: {known}.")
        if self.methods is not None:
            rows = _with_methods(rows, self.methods)
        if self.seeds is not None:
            rows = [replace(row, seed=None) for row in rows]
            rows = [row for index, row in enumerate(rows) if row not in rows[:index]]
        scale = self.scale_of(study)
        return [
            _filled(row, scale, seed, self.num_episodes)
            for row in rows
            for seed in (scale.seeds if row.seed is None else (row.seed,))
        ]


def _with_methods(rows: Sequence[Row], methods: Sequence[str]) -> list[Row]:
    first = rows[0].name
    patterns = [row for row in rows if row.name == first]
    varied = len({row.label for row in patterns}) > 1
    changed = []
    for dataset in dict.fromkeys(row.dataset for row in patterns):
        for given in methods:
            method, _, preset = given.partition(":")
            for row in (row for row in patterns if row.dataset == dataset):
                variants = [row.label] if varied and row.label != first else []
                label = labelled(given, variants, alone=len(methods) == 1)
                changed.append(replace(row, method=method, preset=preset, label=label))
    return changed


def labelled(name: str, variants: Sequence[str], *, alone: bool) -> str:
    """Returns what tells a row from the others; a method that is alone needs no name."""
    differing = [variant for variant in variants if variant]
    return ", ".join(differing if alone and differing else [name, *differing])


def _filled(row: Row, scale: Scale, seed: int, num_episodes: int | None) -> Row:
    """The row at a scale: lines without a budget need but one; its own numbers go first."""
    row = replace(row, preset=row.preset or scale.preset, seed=seed)
    row.config_values()  # refuses what the method does not know
    evaluation = {"seed": seed, "num_episodes": scale.num_episodes, **row.evaluation}
    if num_episodes is not None:
        evaluation["num_episodes"] = num_episodes
    if not evaluation.get("random_ratios") and not METHODS[row.method].constrained:
        evaluation["ratios"] = (1.0,)
    _check_interval(row, EvaluationConfig(**evaluation).control_interval)
    (dataset,) = capped([row.dataset], scale.max_steps)
    return replace(row, evaluation=evaluation, dataset=dataset)


def _check_interval(row: Row, interval: int) -> None:
    """Refuses an interval between two plans that are not made, or are shorter."""
    method = METHODS[row.method]
    if interval == 1:
        return
    if not hasattr(method.agent_class, "plan"):
        raise ValueError(f"control_interval needs a method that plans; {row.method} does not.")
    horizon = method.config(row.preset, row.dataset.env_id, **row.settings).model.horizon
    if interval > horizon:
        raise ValueError(
            f"control_interval should be at most the horizon of the plans of {row.name}, "
            f"{horizon}. Received {interval}."
        )


def standard_dataset(env_id: str, quality: str = "replay") -> CollectConfig:
    """Returns the dataset as the paper has it, or else as it is collected by default."""
    of_paper = [c for c in MANIFEST if (c.env_id, c.quality) == (env_id, quality)]
    return of_paper[0] if of_paper else CollectConfig(env_id=env_id, quality=quality)


def is_standard_size(config: CollectConfig) -> bool:
    """Says whether a dataset has the standard number of steps, whatever its seed and expert."""
    first = replace(config, seed=0)
    if config.expert is None:
        return first == standard_dataset(config.env_id, config.quality)
    return any(replace(standard, expert=config.expert) == first for standard in BY_EXPERTS)


def dataset_id_of(config: CollectConfig) -> str:
    """Returns a Minari id; datasets of another size or seed than the standard have their own."""
    name, _, version = config.dataset_id.rpartition("-")
    size = "" if is_standard_size(config) else f"-{config.sac_steps}"
    seed = f"-seed{config.seed}" if config.seed else ""
    return f"{name}{size}{seed}-{version}"


@dataclass(frozen=True, kw_only=True)
class RowRun:
    """A row with all that the scale says filled in, on this machine.

    Attributes:
        row: The row.
        dataset_id: Minari id of its dataset.
        folder: Of the training; rows that share it share this folder.
        out: Folder of the results.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
    """

    row: Row
    dataset_id: str
    folder: Path
    out: Path
    device: str = "auto"

    @property
    def name(self) -> str:
        """Label, task and seed."""
        return f"{self.row.label}, {self.row.task}, {self.row.seed}"

    def train(self, progress: Progress | None = None) -> Agent:
        """Returns the agent of the row, trained and loaded with the row's settings."""
        row = self.row
        agent = train(
            self.dataset_id,
            self.folder,
            method=row.method,
            preset=row.preset,
            seed=row.seed or 0,
            device=self.device,
            settings=row.settings,
            progress=progress,
        )
        if row.load_settings:
            agent = load_agent(self.folder, device=self.device, **row.load_settings)
        return agent
