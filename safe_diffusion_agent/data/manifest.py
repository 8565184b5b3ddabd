"""Every dataset of the paper (Lin et al. 2023, Sec. 5.1 and App. B), and some with real experts.

Our own SAC of a robot takes hours, and days for what D4RL's experts do. Policies of the zoo do it,
and SAC has only to become medium.
"""

from collections.abc import Sequence
from dataclasses import replace

from safe_diffusion_agent.data.qualities import CollectConfig

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

ZOO = "logs/sac"  # as the zoo's own command stores them
# The zoo's policy for Hopper falls after 300 steps in today's bodies: it is no expert.
BY_EXPERTS: tuple[CollectConfig, ...] = tuple(
    CollectConfig(
        env_id=f"safe/{name}{task}-v0",
        quality=quality,
        num_steps=1_000_000,
        train_steps=None if quality == "medium-replay" else 1_000_000,
        expert=f"{ZOO}/{name}-v3_1/{name}-v3.zip",
    )
    for name in ("HalfCheetah", "Walker2d")
    for task, qualities in (
        ("", ("medium-replay", "medium", "medium-expert")),
        ("Sum", ("medium-expert",)),
    )
    for quality in qualities
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
