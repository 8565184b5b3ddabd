"""What can be collected, and what it is called.

The qualities are those of the paper's data sets (Lin et al. 2023, Sec. 5.1 and App. B; those of
D4RL, Fu et al. 2020, for MuJoCo):

    replay         all that an unconstrained SAC saw in its training
    medium         episodes of the policy of that training that first reached a third of what its
                   final policy returns, counted from what random actions or none return
    medium-replay  all that SAC saw up to that policy
    expert         episodes of the final policy
    medium-expert  half medium, half expert

Another policy may take the place of the final one: a zip of Stable-Baselines3. The training then
ends as soon as it is medium.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safe_diffusion_agent.data.levels import expert_id
from safe_diffusion_agent.errors import UnknownNameError
from safe_envs import task_spec

ALGORITHMS = {
    "replay": "SAC (Stable-Baselines3), unconstrained: its whole replay buffer",
    "medium": "SAC (Stable-Baselines3), unconstrained, stopped at a third of its performance",
    "medium-replay": "SAC (Stable-Baselines3), unconstrained: its replay buffer up to medium",
    "expert": "SAC (Stable-Baselines3), unconstrained, fully trained",
    "medium-expert": "SAC (Stable-Baselines3), unconstrained: half medium, half expert",
}
QUALITIES = tuple(ALGORITHMS)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    Attributes:
        env_id: A task of `safe_envs`.
        quality: One of `QUALITIES`.
        num_steps: Steps of the dataset (the paper: 2e4 for replay on Pendulum and Reacher, 1e6 on
            Bullet tasks); for replay and medium-replay, steps of SAC. Episodes are stored whole: a
            last one that SAC did not finish is left out, one that is rolled out is finished.
        train_steps: Steps of SAC, with one gradient step each, for the qualities that are rolled
            out. None: as `num_steps`. With an expert, at most so many.
        expert: Path of a zip of Stable-Baselines3 whose policy is the expert, and ends our own
            training. None: the last policy of our own training.
        seed: Fixes the whole collection, on one machine.
    """

    env_id: str
    quality: str = "replay"
    num_steps: int = 20_000
    train_steps: int | None = None
    expert: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise UnknownNameError("quality", self.quality, QUALITIES)
        if self.quality.endswith("replay") and self.train_steps not in (None, self.num_steps):
            raise ValueError(f"{self.quality} is what SAC saw: leave out train_steps.")
        if self.expert is not None and self.quality == "replay":
            raise ValueError("replay is all that SAC saw: leave out expert.")
        if self.quality.endswith("replay") and self.trained_in != task_spec(self.env_id).id:
            raise ValueError(
                f"{self.env_id} differs from {self.trained_in} in its costs alone, so that SAC is "
                f"trained there: collect {self.quality} of that task."
            )
        longest = task_spec(self.env_id).max_episode_steps
        for name in ("num_steps", "sac_steps"):
            if getattr(self, name) < longest:
                raise ValueError(
                    f"{name} should be at least one episode of {self.env_id} ({longest} steps). "
                    f"Received {getattr(self, name)}."
                )

    @property
    def sac_steps(self) -> int:
        """Steps of SAC."""
        return self.num_steps if self.train_steps is None else self.train_steps

    @property
    def dataset_id(self) -> str:
        """Minari id that the dataset has unless another is asked for."""
        return default_dataset_id(self.env_id, self.quality, self.expert)

    @property
    def trained_in(self) -> str:
        """Id of the task that SAC is trained in; those that differ in costs alone share one."""
        spec = task_spec(self.env_id)
        return spec.same_but_costs or spec.id

    def identity(self, made_by: str = "") -> dict[str, Any]:
        """Returns JSON values of all that the dataset depends on.

        Args:
            made_by: What a finished dataset says of its expert: where there is no file of the
                same name any more, it is taken to be that.

        Raises:
            DatasetError: There is no file of the expert.
        """
        values = asdict(self)
        expert = values.pop("expert")
        if expert is None:
            return values
        path = Path(expert)
        gone = not path.exists() and made_by.startswith(f"{path.name} ")
        return values | {"expert": made_by if gone else expert_id(expert)}


def default_dataset_id(env_id: str, quality: str = "replay", expert: str | None = None) -> str:
    """Returns a Minari id: `safe-envs/pendulum/sac-replay-v0`, `safe-envs/hopper/medium-v0`.

    With an expert: `safe-envs/walker2d/medium-by-walker2d_v3-v0`.
    """
    task = task_spec(env_id).id.removeprefix("safe/").rpartition("-")[0]
    name = "sac-replay" if quality == "replay" else quality
    if expert is not None:
        name += "-by-" + re.sub(r"\W+", "_", Path(expert).stem)
    return f"safe-envs/{task}/{name}-v0".lower()


def paper_max_budget(env_id: str, quality: str) -> float | None:
    """Returns the maximum budget of the paper's dataset (Table 2), or None if it has none."""
    spec = task_spec(env_id)
    if not spec.of_paper:
        return None
    main_quality = "medium-replay" if spec.other_max_budgets else "replay"
    return ({main_quality: spec.max_budget} | dict(spec.other_max_budgets)).get(quality)


def default_state_dir(config: CollectConfig) -> Path:
    """Returns the folder of a collection; qualities of one training share it."""
    name = default_dataset_id(config.trained_in).split("/")[1]
    until = "" if config.expert is None else f"-until-a-third-of-{Path(config.expert).stem}"
    name = f"{name}-{config.sac_steps}{until}-seed{config.seed}"
    return Path("runs") / "collections" / name
