"""Draws every task in the middle of an episode, with what its cost sees and a budget.

    python docs/contact_sheet.py

The behaviors are open-loop gaits and simple controllers, chosen for the picture. Writes
results/envs/contact_sheet.png.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from safe_envs import TASKS, BudgetObservation, RenderOverlay

OUTPUT = Path(__file__).parent.parent / "results" / "envs" / "contact_sheet.png"
COLUMNS, GAP, TITLE, FOOTER = 4, 24, 34, 54  # pictures in a row, pixels
INK, SOFT_INK = (38, 50, 64), (110, 122, 135)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A moment of an episode: the policy gets the observation and the number of the step."""

    task: str
    title: str
    policy: Callable[[np.ndarray, int], list[float] | np.ndarray]
    num_steps: int
    budget: float
    seed: int = 0
    options: dict = field(default_factory=dict)


def swing_up(obs: np.ndarray, step: int) -> list[float]:
    """Pumps energy in until the top is near."""
    return [float(np.sign(obs[2])) if obs[0] < 0.5 else 0.0]


def reach(obs: np.ndarray, step: int) -> np.ndarray:
    """Turns both joints to where the fingertip is at the goal of the reachable geometry."""
    angles = np.arctan2(obs[2:4], obs[:2])
    return 0.3 * (np.array([0.35, 0.9]) - angles) - 0.03 * obs[6:8]


def drive(obs: np.ndarray, step: int) -> list[float]:
    """Clockwise along the circle, steering back to it."""
    heading, bearing = math.atan2(obs[4], obs[5]), math.atan2(obs[1], obs[0])
    wanted = bearing - math.pi / 2 - math.atan(8.0 * obs[7])
    return [1.0, 2.0 * math.remainder(wanted - heading, 2.0 * math.pi)]


def roll(obs: np.ndarray, step: int) -> np.ndarray:
    """Straight to the goal."""
    return 20.0 * obs[55:57] - 2.5 * obs[2:4]


def gait(period: float, *joints: tuple[float, float, float]) -> Callable:
    """Each joint swings as a sine: (amplitude, offset, phase in periods)."""
    amplitudes, offsets, phases = np.transpose(joints)
    return lambda obs, step: offsets + amplitudes * np.sin(2.0 * math.pi * (step / period + phases))


RUN = gait(6.15, (0.43, -0.18, 1.07), (0.88, 0.52, 0.47), (0.69, 0.2, 0.89),
           (0.85, -0.41, 0.88), (0.96, 0.34, 0.99), (0.22, 0.2, 0.87))  # fmt: skip
HOP = gait(81.4, (0.0, 0.05, 0.0), (0.23, 0.02, 1.08), (0.06, 0.11, 0.9))
WALK = gait(121.0, (0.31, 0.38, 0.38), (0.67, -0.34, 0.09), (0.64, 0.8, -0.34),
            (0.0, 0.14, 0.0), (0.65, 0.56, 0.64), (0.0, 0.46, 0.0))  # fmt: skip

SCENES = (
    Scene(task="Pendulum", title="swing up", policy=swing_up, num_steps=92, budget=12),
    Scene(task="ReacherReachable", title="reach the goal", policy=reach, num_steps=9, budget=10),
    Scene(task="CarCircle", title="follow the circle", policy=drive, num_steps=330, budget=30,
          seed=3),
    Scene(task="BallReach", title="roll to the goal", policy=roll, num_steps=64, budget=35,
          seed=3),
    Scene(task="HalfCheetah", title="run", policy=RUN, num_steps=68, budget=200),
    Scene(task="HalfCheetah", title="cost='speed_limit'", policy=RUN, num_steps=58, budget=25,
          options={"cost": "speed_limit", "speed_limit": 2.0}),
    Scene(task="Hopper", title="hop", policy=HOP, num_steps=70, budget=100),
    Scene(task="Walker2d", title="walk", policy=WALK, num_steps=150, budget=60),
)  # fmt: skip


def picture(scene: Scene, size: int) -> Image.Image:
    env_id = f"safe/{scene.task}-v0"
    if scene.task == "Pendulum":
        env = gym.make(env_id, render_mode="rgb_array", **scene.options)
        env.unwrapped.screen_dim = size  # Gymnasium's pendulum takes no width and height
    else:
        shape = {"width": size, "height": size}
        env = gym.make(env_id, render_mode="rgb_array", **shape, **scene.options)
    env = RenderOverlay(BudgetObservation(env, scene.budget))
    obs, _ = env.reset(seed=scene.seed)
    low, high = env.action_space.low, env.action_space.high
    for step in range(scene.num_steps):
        action = np.asarray(scene.policy(obs["observation"], step), np.float32)
        obs, *_ = env.step(np.clip(action, low, high))
    frame = env.render()
    env.close()
    return Image.fromarray(frame)


def main(path: Path = OUTPUT, size: int = 420) -> None:
    drawn = {f"safe/{scene.task}-v0" for scene in SCENES}
    others = {name for name, spec in TASKS.items() if spec.same_but_costs is None}
    assert drawn == others - {"safe/Reacher-v0"}  # the same arm, its goal out of the picture
    width, height = size + GAP, size + TITLE + FOOTER + GAP
    num_rows = math.ceil(len(SCENES) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + GAP, num_rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(SCENES):
        x, y = GAP + index % COLUMNS * width, GAP + index // COLUMNS * height
        draw.text((x, y), f"safe/{scene.task}-v0", INK, ImageFont.load_default(20))
        subtitle = ImageFont.load_default(15)
        draw.text((x + size, y + 4), scene.title, SOFT_INK, subtitle, anchor="ra")
        sheet.paste(picture(scene, size), (x, y + TITLE))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
