"""Episodes that are not trained on, and what the cost value gets wrong about them."""

import math

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, is_held_out
from safe_diffusion_agent.trebi.config import TrebiConfig
from safe_diffusion_agent.trebi.planners import GuidedPlanner
from safe_diffusion_agent.trebi.windows import Windows

MAX_SCORES = 10_000  # windows that the cost value is asked about


@torch.no_grad()
def underestimated_values(planner: GuidedPlanner, windows: Windows) -> Tensor:
    """Cost-to-go of windows less what the planner would expect of such candidates, `(m,)`.

    Args:
        planner: Its networks are trained.
        windows: Of episodes that they were not trained on.
    """
    rows = torch.arange(0, len(windows), max(1, len(windows) // MAX_SCORES))
    scores = []
    for chosen in rows.split(1_000):
        batch = windows.get(chosen)
        _, cost_value = planner.values(batch.remaining_steps.to(torch.float32))
        clean_step = torch.zeros(1, dtype=torch.int64, device=batch.costs.device)
        scores.append(batch.costs - cost_value(batch.trajectories, clean_step))
    return torch.cat(scores).cpu()


def check_risk(config: TrebiConfig, episodes: Episodes) -> None:
    """Finds out before a training whether its calibration will have enough scores.

    Raises:
        ValueError: It will not.
    """
    risk, frontier = config.planner.risk, config.frontier
    if risk is None:
        return
    if config.model.judge == "values":
        held_out = is_held_out(len(episodes.lengths), config.training.calibration_share)
        num_windows, needed = int(episodes.lengths[held_out].sum()), math.ceil(1.0 / risk) - 1
        if num_windows < needed:
            raise ValueError(
                f"A risk of {risk:g} needs {needed} steps of held-out data; there are "
                f"{num_windows}. Set calibration_share=0.1 or more, use more data, or risk=None."
            )
        return
    held_out = is_held_out(len(episodes.lengths), frontier.held_out_share)
    num_windows = int((episodes.lengths[held_out] // config.model.horizon).sum())
    needed = math.ceil(2.0 / risk) - 1
    if min(num_windows, frontier.calibration_episodes) < needed:
        raise ValueError(
            f"A risk of {risk:g} needs {needed} calibration_episodes and as many windows of "
            f"held-out data; there are {frontier.calibration_episodes} and {num_windows}. Use more "
            "data, a larger risk, or risk=None for no margin."
        )
