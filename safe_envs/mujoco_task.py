"""What our MuJoCo tasks add to Gymnasium's environments: pictures on any machine, steady infos."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from safe_envs.rendering.canvas import PAPER

HOW_TO_RENDER = (
    "MuJoCo cannot draw: {cause}. It needs OpenGL. Without a screen, use render_mode='rgb_array' "
    "and one of its two headless backends: MUJOCO_GL=egl (Debian and Ubuntu: apt-get install "
    "libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6). Stepping "
    "without a render_mode needs none of this; leave MUJOCO_GL unset then."
)

try:
    import mujoco
    from gymnasium.envs.mujoco import MujocoEnv
    from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
    from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
    from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
    from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
except ModuleNotFoundError as error:
    raise gym.error.DependencyNotInstalled(
        "The MuJoCo tasks need MuJoCo: pip install 'gymnasium[mujoco]'."
    ) from error
except Exception as error:  # MUJOCO_GL names a backend that this machine does not have
    raise gym.error.DependencyNotInstalled(HOW_TO_RENDER.format(cause=error)) from error

LIGHT_TILE, DARK_TILE = (236, 239, 243), (212, 218, 226)

TOTAL_MASS = re.compile(r'\bsettotalmass="([^"]+)"')

__all__ = ["HalfCheetahEnv", "HopperEnv", "MujocoTask", "ReacherEnv", "Walker2dEnv"]


class MujocoTask(MujocoEnv):
    """Mix-in for one of Gymnasium's MuJoCo environments.

    Attributes:
        step_info: Keys of the step's info that Gymnasium's reset leaves out; they are 0.0 there.
        followed: Whether the camera moves along with the robot's x position.
    """

    step_info: ClassVar[tuple[str, ...]] = ()
    followed: ClassVar[bool] = False

    def render(self) -> Any:
        """Renders as `render_mode` says; a Linux machine without a screen draws with EGL.

        Raises:
            gymnasium.error.DependencyNotInstalled: The machine has no OpenGL; the message names
                the packages.
        """
        if self.render_mode is None:
            return super().render()  # Gymnasium says which modes there are
        if self.mujoco_renderer.viewer is None:
            self._lighten()
            try:
                if self.render_mode == "human":
                    _check_screen()
                with _headless_backend():
                    super().render()
            except Exception as error:
                raise gym.error.DependencyNotInstalled(HOW_TO_RENDER.format(cause=error)) from error
        viewer: Any = self.mujoco_renderer.viewer
        if self.followed:
            viewer.cam.lookat[0] = self.data.qpos[0]
        return super().render()

    def simulate(self, action: Any) -> None:
        """Holds an action for one step of `dt` seconds."""
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)

    def _initialize_simulation(self) -> tuple[Any, Any]:
        # MuJoCo deprecates an attribute of half_cheetah.xml, with a warning and a log file for each
        # environment. This is its own recipe for doing without, and gives the same model.
        text = Path(self.fullpath).read_text()
        total_mass = TOTAL_MASS.search(text)
        if total_mass is None:
            return super()._initialize_simulation()
        model = mujoco.MjModel.from_xml_string(TOTAL_MASS.sub("", text))
        mujoco.mj_setTotalmass(model, float(total_mass[1]))
        mujoco.mj_setConst(model, mujoco.MjData(model))
        screen = model.vis.global_
        screen.offwidth = max(screen.offwidth, self.width)
        screen.offheight = max(screen.offheight, self.height)
        return model, mujoco.MjData(model)

    def _lighten(self) -> None:
        """Gives pictures the plain ground and sky of our drawings, and light from all sides."""
        visual, model = self.model.vis, self.model
        visual.headlight.ambient[:], visual.headlight.diffuse[:] = 0.55, 0.2
        model.light_diffuse[:] = 0.45
        model.mat_reflectance[:] = 0.0
        model.geom_rgba[model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE] = 1.0
        visual.rgba.haze[:3] = np.array(PAPER) / 255
        for index, kind in enumerate(model.tex_type):
            num_channels = model.tex_nchannel[index]
            num_bytes = model.tex_height[index] * model.tex_width[index] * num_channels
            start = model.tex_adr[index]
            texture = model.tex_data[start : start + num_bytes].reshape(-1, num_channels)
            if kind == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
                texture[:] = PAPER
            elif kind == mujoco.mjtTexture.mjTEXTURE_2D:  # the ground; a cube is the robot's skin
                light = texture.mean(axis=1, keepdims=True) > texture.mean()
                texture[:] = np.where(light, LIGHT_TILE, DARK_TILE)

    def _get_reset_info(self) -> dict[str, Any]:
        return dict.fromkeys(self.step_info, 0.0) | super()._get_reset_info()


def _check_screen() -> None:
    """Raises an exception if no window can be opened; MuJoCo's own window would end the process."""
    import glfw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glfw's warnings; what they say goes into our message
        if not glfw.init() or glfw.get_primary_monitor() is None:
            raise gym.error.Error("there is no screen for render_mode='human'")


@contextmanager
def _headless_backend() -> Iterator[None]:
    """Chooses EGL while the first picture is drawn, where there is no screen and no choice yet."""
    has_screen = sys.platform != "linux" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")
    )
    if has_screen:
        yield
        return
    os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]
