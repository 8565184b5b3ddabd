"""Every dataset of the paper (Lin et al. 2023, Sec. 5.1 and App. B), and collecting several."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from queue import Empty
from typing import Any

from safe_diffusion_agent.data.collection import CollectConfig, collect, default_dataset_id

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

NamedProgress = Callable[..., None]


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


def collect_all(
    configs: Sequence[CollectConfig],
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: NamedProgress | None = None,
) -> list[str]:
    """Collects several datasets, side by side; those that share a training, one after the other.

    Args:
        configs: The datasets.
        jobs: Processes.
        overwrite: See `collect`.
        progress: Called as `progress(dataset_id, done, total, **values)`.

    Returns:
        The ids of the datasets, in the order of `configs`.

    Raises:
        ValueError: `jobs` is not positive, or see `collect`.
    """
    if jobs < 1:
        raise ValueError(f"jobs should be positive. Received {jobs}.")
    groups: dict[tuple[str, int, int], list[CollectConfig]] = {}
    for config in configs:
        groups.setdefault((config.env_id, config.sac_steps, config.seed), []).append(config)
    context = get_context("spawn")  # a fork of a process that has used a GPU cannot train
    with context.Manager() as manager, ProcessPoolExecutor(jobs, context) as pool:
        queue = manager.Queue()
        waiting: set[Future[None]] = {
            pool.submit(_collect_group, group, overwrite, queue) for group in groups.values()
        }
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(queue, progress)
            for future in finished:
                future.result()
    return [default_dataset_id(config.env_id, config.quality) for config in configs]


def _collect_group(configs: list[CollectConfig], overwrite: bool, queue: Any) -> None:
    for config in configs:
        dataset_id = default_dataset_id(config.env_id, config.quality)
        told_at = 0.0

        def progress(done: int, total: int, dataset_id: str = dataset_id, **values: float) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at > 0.2 or done == total:
                told_at = now
                queue.put((dataset_id, done, total, values))

        collect(config, overwrite=overwrite, progress=progress)
        queue.put((dataset_id, 1, 1, {}))


def _drain(queue: Any, progress: NamedProgress | None) -> None:
    while True:
        try:
            dataset_id, done, total, values = queue.get_nowait()
        except Empty:
            return
        if progress is not None:
            progress(dataset_id, done, total, **values)
