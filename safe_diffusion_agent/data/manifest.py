"""Every dataset of the paper (Lin et al. 2023, Sec. 5.1 and App. B)."""

from collections.abc import Sequence
from dataclasses import replace

from safe_diffusion_agent.data.collection import CollectConfig

# The sizes are the paper's; for the MuJoCo tasks they are D4RL's, after a SAC of 1e6 steps.
MANIFEST: tuple[CollectConfig, ...] = (
    CollectConfig(env_id="safe/Pendulum-v0", num_steps=20_000),
    CollectConfig(env_id="safe/Reacher-v0", num_steps=20_000),
    CollectConfig(env_id="safe/CarCircle-v0", num_steps=1_000_000),
    CollectConfig(env_id="safe/BallReach-v0", num_steps=1_000_000),
    *(
        CollectConfig(
            env_id=f"safe/{name}-v0", quality=quality, num_steps=steps, train_steps=train_steps
        )
        for name in ("HalfCheetah", "Hopper", "Walker2d")
        for quality, steps, train_steps in (
            ("medium-replay", 1_000_000, None),
            ("medium", 1_000_000, 1_000_000),
            ("medium-expert", 2_000_000, 1_000_000),
        )
    ),
)


def capped(configs: Sequence[CollectConfig], max_steps: int | None) -> list[CollectConfig]:
    """Returns the same datasets with at most `max_steps` steps each, and of their SAC.

    None leaves them as they are.

    Raises:
        ValueError: A dataset would be shorter than an episode.
    """
    if max_steps is None:
        return list(configs)
    return [
        replace(
            config,
            num_steps=min(config.num_steps, max_steps),
            train_steps=None if config.train_steps is None else min(config.train_steps, max_steps),
        )
        for config in configs
    ]
