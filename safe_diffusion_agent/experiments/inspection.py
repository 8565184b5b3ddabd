"""What an agent is, and what it saw when it made one decision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.evaluation.figures import BLUE, GRAY, RED, write_figure
from safe_diffusion_agent.methods.trebi.agent import TrebiAgent
from safe_diffusion_agent.methods.trebi.plan import Plan
from safe_envs import BudgetObservation

FloatArray = npt.NDArray[np.float32]
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Decision:
    """One decision of an agent.

    Attributes:
        observation: `(O,)`.
        remaining_budget: In cost units.
        remaining_steps: Steps up to the time limit.
        margin: What the agent held back of the budget.
        plan: The plan, with its candidates.
        curves: With `judge="frontier"`: cost and return `(K, G)` that the agent foresees for each
            candidate and each multiplier; else None.
        frontier: With `judge="frontier"`: cost and return `(G,)` that the critic alone foresees.
        frame: Picture of the environment, if it gives one.
        paths: Where the candidates imagine to be, `(K, H, 2)`, in pixels of the frame; None where
            the environment does not say what an observation looks like (`position_of`).
    """

    observation: FloatArray
    remaining_budget: float
    remaining_steps: int
    margin: float
    plan: Plan
    curves: tuple[FloatArray, FloatArray] | None
    frontier: tuple[FloatArray, FloatArray] | None
    frame: npt.NDArray[np.uint8] | None = None
    paths: FloatArray | None = None


def check_picture(path: Path) -> None:
    """Refuses the name of a picture whose ending says no format, before it is drawn.

    Raises:
        ValueError: It ends in something else.
    """
    if path.suffix not in PICTURES:
        raise ValueError(
            f"A picture should end in {' or '.join(PICTURES)}. Received {str(path)!r}."
        )


def decision_at(
    agent: TrebiAgent, *, budget: float, step: int = 0, env_id: str | None = None, seed: int = 0
) -> Decision:
    """Plays an episode up to a step, and looks at the decision there.

    Args:
        agent: The agent.
        budget: Of the episode, in cost units.
        step: Number of steps before the decision, >= 0.
        env_id: None takes the agent's task.
        seed: Of the start state.

    Raises:
        ValueError: There is no environment, or the episode has no such step.
    """
    if step < 0:
        raise ValueError(f"step should be zero or more. Received {step}.")
    env_id = env_id or agent.task.env_id
    if env_id is None:
        raise ValueError("The agent's dataset names no environment: give env_id.")
    env = BudgetObservation(gym.make(env_id, render_mode="rgb_array"), budget=budget)
    try:
        obs, info = env.reset(seed=seed)
        for taken in range(step):
            action = agent.act(
                obs["observation"], info["remaining_budget"], info["remaining_steps"]
            )
            obs, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                raise ValueError(f"The episode is over after {taken + 1} steps; choose fewer.")
        frame: Any = env.render()
        decision = decision_of(
            agent, obs["observation"], info["remaining_budget"], info["remaining_steps"]
        )
        paths = _paths(env.unwrapped, decision.plan, frame)
    finally:
        env.close()
    return Decision(**(vars(decision) | {"frame": frame, "paths": paths}))


def _paths(world: Any, plan: Plan, frame: Any) -> FloatArray | None:
    """The candidates' observations as pixels, `(K, H, 2)`."""
    assert plan.candidates is not None
    if frame is None or not hasattr(world, "position_of"):
        return None
    positions = world.position_of(plan.candidates.observations[0])
    pixels = world.view.pixel(np.moveaxis(positions, -1, 0), (frame.shape[1], frame.shape[0]))
    return np.stack(pixels, axis=-1)


def decision_of(
    agent: TrebiAgent, obs: npt.ArrayLike, remaining_budget: float, remaining_steps: int
) -> Decision:
    """The decision for one observation; arguments as of `Agent.act`."""
    plan = agent.plan(obs, remaining_budget, remaining_steps, return_candidates=True)
    curves = alone = None
    judge = agent.planner.judge
    if judge.foresee is not None and plan.candidates is not None:
        found = [plan.candidates.actions[:1], plan.candidates.observations[:1]]
        trajectories = torch.tensor(np.concatenate(found, axis=-1), device=agent.device)
        state = torch.tensor(np.atleast_2d(np.asarray(obs, np.float32)), device=agent.device)
        steps = torch.full((1,), float(remaining_steps), device=agent.device)
        foreseen = judge.foresee(agent.normalizer.trajectories(trajectories), state, steps)
        curves, (alone_cost, alone_return) = (
            tuple(tensor.cpu().numpy() for tensor in pair) for pair in foreseen
        )
        alone = (alone_cost[0], alone_return[0])
    return Decision(
        observation=np.asarray(obs, np.float32),
        remaining_budget=float(remaining_budget),
        remaining_steps=int(remaining_steps),
        margin=float(plan.margin[0]),
        plan=plan,
        curves=curves,
        frontier=alone,
    )


def held_back_too_much(agent: Agent) -> str:
    """What to know of a margin that is more than half of the largest budget; else nothing.

    A budget within the margin leaves nothing to choose: every plan is the one that costs least.
    """
    margin, largest = getattr(agent, "margin", 0.0), agent.task.max_budget
    if margin <= largest / 2:
        return ""
    return (
        f"{margin:.3g} of a budget are held back, of {largest:.3g} at most: with budgets within "
        "that, every plan is the one that costs least. The models predict costs too poorly for "
        "this risk: train on more data, or load the agent with a larger risk."
    )


def facts(agent: TrebiAgent) -> dict[str, str]:
    """What there is to know of an agent, by name."""
    task, about = agent.task, agent.about
    settings = agent.config
    lines = {
        "method": f"{agent.method}, preset {settings.preset}",
        "task": f"{task.env_id}, at most {task.max_episode_steps} steps, cost discount "
        f"{task.cost_discount:g}, maximum budget {task.max_budget:g}",
        "dataset": f"{task.dataset_id} ({task.dataset_fingerprint})",
        "made by": str(about.get("provenance", {}).get("command")),
        "margin": f"{agent.margin:.3g} cost units. {held_back_too_much(agent)}".strip(),
    }
    errors = about.get("model_errors")
    if errors:
        trusted = int(agent.networks.dynamics.trusted_steps)
        shares = ", ".join(
            f"{name} {values[0]:.2%} after 1, {values[-1]:.2%} after {len(values)} steps"
            for name, values in errors.items()
            if values
        )
        lines["model errors"] = f"{shares} (share of the variance, held-out episodes)"
        branches = about.get("branches", settings.frontier.imagines(trusted))
        source = "branches, too" if branches else "imitation of the recorded episodes"
        lines["model rollouts"] = (
            f"{trusted} of {settings.model.horizon} steps are trusted; critic from {source}"
        )
    return lines


def draw_decision(decision: Decision, path: Path) -> None:
    """Left: the environment, and over it where the candidates go, as far as it can show that.

    Right: return against cost up to the end of the episode.

    With `judge="frontier"` a line per candidate is what it and the best continuations can reach,
    the dashed line what the critic alone foresees. Otherwise a point is a candidate's prediction.
    """
    has_frame = decision.frame is not None
    figure = Figure(figsize=(9.0 if has_frame else 5.5, 3.8))
    widths = {"width_ratios": [1.0, 1.5]} if has_frame else None
    panels = figure.subplots(1, 1 + has_frame, squeeze=False, gridspec_kw=widths)[0]
    if decision.frame is not None:
        panels[0].imshow(decision.frame)
        panels[0].set_axis_off()
        _draw_paths(panels[0], decision)
    axes = panels[-1]
    _draw_candidates(axes, decision)
    allowed = decision.remaining_budget - decision.margin
    if np.isfinite(allowed):
        axes.axvline(allowed, color="black", linewidth=1.2)
        axes.text(allowed, 1.0, " budget", transform=axes.get_xaxis_transform(), va="top")
    feasible = "feasible" if decision.plan.feasible[0] else "no candidate fits"
    axes.set_title(f"{decision.remaining_steps} steps left, {feasible}")
    axes.set_xlabel("cost up to the end of the episode")
    axes.set_ylabel("return up to the end")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    write_figure(figure, path)


def _draw_paths(axes: Any, decision: Decision) -> None:
    candidates = decision.plan.candidates
    if decision.paths is None or candidates is None:
        return
    for path in decision.paths:
        axes.plot(*path.T, color=BLUE, alpha=0.4, linewidth=0.8)
    axes.plot(*decision.paths[int(candidates.chosen[0])].T, color=RED, linewidth=1.5)


def _draw_candidates(axes: Any, decision: Decision) -> None:
    candidates = decision.plan.candidates
    assert candidates is not None
    chosen = int(candidates.chosen[0])
    if decision.curves is None or decision.frontier is None:
        costs, returns = candidates.predicted_cost[0], candidates.predicted_return[0]
        axes.scatter(costs, returns, color=BLUE, s=16, label="candidates")
        axes.scatter(costs[chosen], returns[chosen], color=RED, s=40, label="chosen")
        return
    costs, returns = decision.curves
    for index in range(len(costs)):
        label = "candidates" if index == 0 else None
        axes.plot(costs[index], returns[index], color=BLUE, alpha=0.3, linewidth=0.8, label=label)
    axes.plot(*decision.frontier, color=GRAY, linestyle="--", label="critic alone")
    axes.plot(costs[chosen], returns[chosen], color=RED, marker=".", label="chosen")
