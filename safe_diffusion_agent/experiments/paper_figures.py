"""The figures of the paper's comparison (Lin et al. 2023), as studies.

A name such as fig4a-causes is a study that looks for the causes of what fig4a shows.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.experiments.jobs import Settings
from safe_diffusion_agent.experiments.rows import (
    Row,
    Study,
    labelled,
    standard_dataset,
)

BASELINES = ("bcq-lagrangian", "cpq", "bcorle", "bcq-saute")
# The paper's methods, a later one whose one training serves any budget, and three lines without a
# constraint. (`quick` of CAPS is ours: the study `caps` measures the values of its public code.)
COMPARED = ("trebi", *BASELINES, "caps", "diffuser", "bcq", "bc")
ANY_BUDGET = ("trebi", "bcorle", "bcq-saute", "caps")  # one training for all budgets
AT_RANDOM = {"random_ratios": True, "num_episodes": 100}  # Lin et al. 2023, App. E

Variants = Mapping[str, Settings]
PLAIN: Variants = {"": {}}


def _mujoco(name: str) -> tuple[CollectConfig, ...]:
    qualities = ("medium", "medium-replay", "medium-expert")
    return tuple(standard_dataset(f"safe/{name}-v0", quality) for quality in qualities)


PENDULUM = (standard_dataset("safe/Pendulum-v0"),)
SMALL_TASKS = (*PENDULUM, standard_dataset("safe/Reacher-v0"))
BULLET_TASKS = (standard_dataset("safe/CarCircle-v0"), standard_dataset("safe/BallReach-v0"))


def _figure(
    title: str,
    datasets: Sequence[CollectConfig],
    methods: Sequence[str] = COMPARED,
    *,
    variants: Variants = PLAIN,
    load_variants: Variants = PLAIN,
    evaluations: Variants = PLAIN,
) -> Study:
    """All combinations; the keys of the variants are their labels."""
    rows = []
    for dataset, given, trained, loaded, evaluated in product(
        datasets, methods, variants, load_variants, evaluations
    ):
        method, _, preset = given.partition(":")
        rows.append(
            Row(
                label=labelled(given, (trained, loaded, evaluated), alone=len(methods) == 1),
                dataset=dataset,
                method=method,
                preset=preset,
                settings=variants[trained],
                load_settings=load_variants[loaded],
                evaluation=evaluations[evaluated],
            )
        )
    return Study(title=title, rows=tuple(rows))


def _at_random(title: str, datasets: Sequence[CollectConfig]) -> Study:
    return _figure(f"{title}, random budgets", datasets, ANY_BUDGET, evaluations={"": AT_RANDOM})


def _penalties(suffix: str = "", **settings: Any) -> Variants:
    return {f"n = {n}{suffix}": {"penalty": float(n), **settings} for n in (10, 100, 1000, 10000)}


# Why do the ablations of Fig. 4 come out differently here? Each guess, tried.
_CHANGES: Variants = {
    "": {},
    ", windows up to the end": {"windows": "all"},
    ", 4 times the training": {"num_steps": 32_000},
}
_CAUSES: Variants = {
    f"H = {horizon}{words}": {"horizon": horizon, **change}
    for words, change in _CHANGES.items()
    for horizon in (32, 128)
}
VARIANCE_RATIO = 3.6175  # of the last guided step, 10 denoising steps over 20

FIGURES: dict[str, Study] = {
    "fig1": _figure("Pendulum and Reacher", SMALL_TASKS),
    "fig2": _figure("HalfCheetah", _mujoco("HalfCheetah")),
    "fig3": _figure("CarCircle and BallReach", BULLET_TASKS),
    "fig4a": _figure(
        "Planning horizon H, on Pendulum",
        PENDULUM,
        ("trebi",),
        variants={f"H = {horizon}": {"horizon": horizon} for horizon in (8, 16, 32, 64, 128)},
    ),
    "fig4a-causes": _figure(
        "Two guesses why the longest horizon is not the best here",
        PENDULUM,
        ("trebi:small",),
        variants=_CAUSES,
        load_variants={"": {}, "n = 10": {"penalty": 10.0}},
    ),
    "fig4b": _figure("Penalty n, on Pendulum", PENDULUM, ("trebi",), load_variants=_penalties()),
    "fig4b-steps": _figure(
        "Is it the number of denoising steps that a large penalty costs return here?",
        PENDULUM,
        ("trebi:small",),
        variants={"T = 20": {"diffusion_steps": 20}},
        load_variants=_penalties(),
    ),
    "fig4b-variance": _figure(
        "Is it the variance of the last guided step?",
        PENDULUM,
        ("trebi:small",),
        load_variants=_penalties(
            f", alpha / {VARIANCE_RATIO:.1f}", guidance_scale=0.1 / VARIANCE_RATIO
        ),
    ),
    "fig5": _figure("Hopper", _mujoco("Hopper")),
    "fig6": _figure("Walker2d", _mujoco("Walker2d")),
    "fig7": _figure(
        "Steps between two plans, on HalfCheetah",
        (standard_dataset("safe/HalfCheetah-v0", "medium-replay"),),
        ("trebi",),
        evaluations={f"every {steps}": {"control_interval": steps} for steps in (1, 2, 3, 4)},
    ),
    "fig8": _at_random("HalfCheetah", _mujoco("HalfCheetah")),
    "fig9": _at_random("Hopper", _mujoco("Hopper")),
    "fig10": _at_random("Walker2d", _mujoco("Walker2d")),
    "fig11": _at_random("CarCircle and BallReach", BULLET_TASKS),
}
