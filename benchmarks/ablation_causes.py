"""Why do the ablations of Fig. 4a and 4b (Pendulum) come out differently here? Each guess, tried.

    python benchmarks/ablation_causes.py [--episodes 20] [--workers 2]

The paper's method at CPU size (preset `small`), with one thing changed at a time. Finished jobs are
kept in runs/reproduce. Writes results/reproduce/fig4a-causes, fig4b-steps
and fig4b-variance.
"""

import argparse
from typing import Any

from safe_diffusion_agent.cli.display import progress_bars
from safe_diffusion_agent.experiments.catalog import FIGURES, SMALL_TASKS, PaperFigure
from safe_diffusion_agent.experiments.reproduce import reproduce
from safe_diffusion_agent.methods.trebi.diffusion import Schedule

PENALTIES = (10, 100, 1000, 10000)
_STEPS, _MORE_STEPS = (Schedule.cosine(num_steps, "cpu").variance for num_steps in (10, 20))
VARIANCE_RATIO = float(_STEPS[1] / _MORE_STEPS[1])  # of the last guided step


def small(title: str, **variants: Any) -> PaperFigure:
    return PaperFigure(title=title, datasets=SMALL_TASKS[:1], methods=("trebi:small",), **variants)


CAUSES = {
    "fig4a-causes": small(
        "Two guesses why the longest horizon is not the best here",
        variants={
            f"H = {horizon}{words}": {"horizon": horizon} | change
            for words, change in {
                "": {},
                ", windows up to the end": {"windows": "all"},
                ", 4 times the training": {"num_steps": 32_000},
            }.items()
            for horizon in (32, 128)
        },
        planner_variants={"": {}, "n = 10": {"penalty": 10.0}},
    ),
    "fig4b-steps": small(
        "Is it the number of denoising steps that a large penalty costs return here?",
        variants={"T = 20": {"diffusion_steps": 20}},
        planner_variants={f"n = {n}": {"penalty": float(n)} for n in PENALTIES},
    ),
    "fig4b-variance": small(
        "Is it the variance of the last guided step?",
        planner_variants={
            f"n = {n}, alpha / {VARIANCE_RATIO:.1f}": {
                "penalty": float(n),
                "guidance_scale": 0.1 / VARIANCE_RATIO,
            }
            for n in PENALTIES
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    FIGURES.update(CAUSES)
    for name in CAUSES:
        with progress_bars() as progress:
            reproduce(
                name,
                seeds=(0,),
                num_episodes=options.episodes,
                workers=options.workers,
                device="cpu",
                progress=progress,
            )


if __name__ == "__main__":
    main()
