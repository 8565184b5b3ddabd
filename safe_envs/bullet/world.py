"""One Bullet simulation: a client of its own, the physics parameters, and bodies."""

import functools
import weakref
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

try:
    import pybullet
    import pybullet_data
except ImportError as error:
    raise gym.error.DependencyNotInstalled(
        "The Bullet tasks need pybullet: pip install 'safe-diffusion-agent[bullet]'. It has wheels "
        "for Python 3.11 and older; for newer ones pip compiles it, which needs a C++ compiler."
    ) from error

Vector = Sequence[float]
DATA_PATH: str = pybullet_data.getDataPath()


class Client:
    """A connection to a physics server of its own; every call goes there and nowhere else.

    Its attributes are pybullet's functions and constants. The server is freed by `disconnect`,
    which can be called again, and when the client is forgotten.
    """

    def __init__(self) -> None:
        self.id: int = pybullet.connect(pybullet.DIRECT)
        self.disconnect = weakref.finalize(self, pybullet.disconnect, self.id)

    def __getattr__(self, name: str) -> Any:
        value = getattr(pybullet, name)
        if callable(value):
            value = functools.partial(value, physicsClientId=self.id)
        setattr(self, name, value)  # the next access does not come here
        return value


class World:
    """A simulation with a ground, and what both tasks do with it.

    Args:
        time_step: Of the physics, in seconds.
        num_substeps: Physics steps in one simulation step.
        ground_half_size: Half of the ground's edge [m].

    Attributes:
        bullet: The client, with pybullet's functions.
        dt: Seconds in one simulation step.
    """

    def __init__(self, *, time_step: float, num_substeps: int, ground_half_size: float):
        self.bullet = Client()
        self.dt = time_step * num_substeps
        self._snapshot: int | None = None
        self.bullet.setGravity(0.0, 0.0, -9.81)
        self.bullet.setDefaultContactERP(0.9)
        self.bullet.setPhysicsEngineParameter(
            fixedTimeStep=self.dt,
            numSubSteps=num_substeps,
            numSolverIterations=5,
            deterministicOverlappingPairs=1,
        )
        ground = self.add_box((ground_half_size, ground_half_size, 5.0), offset=(0.0, 0.0, -5.0))
        self.bullet.changeDynamics(ground, -1, lateralFriction=0.8, restitution=0.5)

    def box_shape(self, half_extents: Vector, offset: Vector = (0.0, 0.0, 0.0)) -> int:
        """Returns a box [m] for bodies to collide with, at an offset in their frame."""
        bullet = self.bullet
        shape: int = bullet.createCollisionShape(
            bullet.GEOM_BOX, halfExtents=half_extents, collisionFramePosition=offset
        )
        return shape

    def add_box(
        self,
        half_extents: Vector,
        offset: Vector = (0.0, 0.0, 0.0),
        *,
        mass: float = 0.0,
        yaw: float = 0.0,
    ) -> int:
        """Adds a box at the origin, turned by `yaw` [rad]; without a mass [kg] it never moves."""
        shape = self.box_shape(half_extents, offset)
        orientation = self.bullet.getQuaternionFromEuler([0.0, 0.0, yaw])
        body: int = self.bullet.createMultiBody(mass, shape, baseOrientation=orientation)
        return body

    def place(self, body: int, position: Vector, yaw: float) -> None:
        """Puts a body somewhere, turned about the vertical [rad], at rest."""
        orientation = self.bullet.getQuaternionFromEuler([0.0, 0.0, yaw])
        self.bullet.resetBasePositionAndOrientation(body, position, orientation)
        self.bullet.resetBaseVelocity(body, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])

    def restore(self) -> None:
        """Returns to the state of the first call, contacts included; motor targets stay."""
        if self._snapshot is None:
            self._snapshot = self.bullet.saveState()
        self.bullet.restoreState(self._snapshot)

    def close(self) -> None:
        """Frees the client; can be called again."""
        self.bullet.disconnect()


def check_render_mode(render_mode: str | None) -> str | None:
    """Returns the render mode of a Bullet environment; the factories add `"human"`.

    Raises:
        ValueError: It is not one.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            f"render_mode should be None, 'rgb_array' or, in gym.make, 'human'. "
            f"Received {render_mode!r}."
        )
    return render_mode
