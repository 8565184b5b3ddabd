"""MuJoCo draws where there is no screen, or says what is missing."""

import os
import subprocess
import sys

import gymnasium as gym
import pytest

pytest.importorskip("mujoco")


def run(code, **variables):
    env = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    return subprocess.run(
        [sys.executable, "-c", code], env=env | variables, capture_output=True, text=True
    )


RENDER = """
import gymnasium as gym
env = gym.make("safe_envs:safe/Hopper-v0", render_mode="rgb_array")
env.reset(seed=0)
print(env.render().shape)
env.close()
"""


def test_needs_no_variable_on_a_machine_without_a_screen():
    result = run(RENDER)
    assert "(480, 480, 3)" in result.stdout or "apt-get install" in result.stderr, result.stderr


@pytest.mark.parametrize("backend", ["osmesa", "nonsense"])
def test_a_backend_that_is_not_there_is_named_with_its_packages(backend):
    result = run(RENDER, MUJOCO_GL=backend)
    works = "(480, 480, 3)" in result.stdout  # where OSMesa is installed
    assert works or (
        "DependencyNotInstalled: MuJoCo cannot draw" in result.stderr
        and "apt-get install libegl1" in result.stderr
    ), result.stderr


def test_a_window_without_a_screen_says_what_to_do():
    code = RENDER.replace("rgb_array", "human")
    result = run(code)
    assert "render_mode='rgb_array'" in result.stderr, result.stderr


def test_stepping_needs_no_opengl():
    code = RENDER.replace(', render_mode="rgb_array"', "").replace(
        "env.render().shape", "env.step(env.action_space.sample())[1]"
    )
    assert run(code).returncode == 0


def test_missing_mujoco_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for module in list(sys.modules):
        if module.startswith(("safe_envs.mujoco_task", "safe_envs.reacher", "safe_envs.loco")):
            monkeypatch.delitem(sys.modules, module)
    for env_id in ("safe/Reacher-v0", "safe/Hopper-v0"):
        with pytest.raises(gym.error.DependencyNotInstalled, match="mujoco"):
            gym.make(env_id)


def test_camera_follows_the_robot():
    env = gym.make("safe/HalfCheetah-v0", render_mode="rgb_array")
    env.reset(seed=0)
    try:
        here = env.render().astype(int)
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    task = env.unwrapped
    position = task.data.qpos.copy()
    position[0] += 50.0
    task.set_state(position, task.data.qvel.copy())
    there = env.render().astype(int)
    env.close()
    assert task.mujoco_renderer.viewer.cam.lookat[0] == task.data.qpos[0]
    skin = [(frame[..., 0] - frame[..., 2] > 25).mean() for frame in (here, there)]
    assert skin[0] > 0.005 and skin[1] == pytest.approx(skin[0], rel=0.3)
