"""The bodies of BallReach's simulation: a room, a ball, and a box that is pulled along."""

from safe_envs.bullet.world import World

BALL_RADIUS, BALL_MASS, BALL_INERTIA = 0.5, 0.3, 0.03
BOX_HALF_EXTENTS, BOX_MASS = (0.5, 0.5, 0.75), 5.0
# Its last digits matter: rounded ones part from the original at the first touch.
BOX_INERTIA = (1.3583366666666663, 1.3583366666666663, 0.8366699999999999)


def add_room(world: World) -> None:
    """Adds four walls as one body: as four bodies, bounces come one step earlier or later."""
    bullet = world.bullet
    along_x, along_y = (10.1, 0.1, 1.0), (0.1, 10.0, 1.0)
    top = world.box_shape(along_x, (0.0, 10.0, 1.0))
    right = world.box_shape(along_y, (10.0, 0.0, 1.0))
    left = world.box_shape(along_y, (-10.0, 0.0, 1.0))
    bottom = world.box_shape(along_x, (0.0, -10.0, 1.0))
    zeros, upright = [[0.0, 0.0, 0.0]] * 3, [[0.0, 0.0, 0.0, 1.0]] * 3
    bullet.createMultiBody(
        0.0,
        top,
        linkMasses=[0.0] * 3,
        linkCollisionShapeIndices=[right, left, bottom],
        linkVisualShapeIndices=[-1] * 3,
        linkPositions=zeros,
        linkOrientations=upright,
        linkInertialFramePositions=zeros,
        linkInertialFrameOrientations=upright,
        linkParentIndices=[0, 0, 1],
        linkJointTypes=[bullet.JOINT_FIXED] * 3,
        linkJointAxis=[[0.0, 0.0, 1.0]] * 3,
    )


def add_ball(world: World) -> int:
    """Adds the ball, at the origin until it is placed."""
    bullet = world.bullet
    shape = bullet.createCollisionShape(bullet.GEOM_SPHERE, radius=BALL_RADIUS)
    ball: int = bullet.createMultiBody(BALL_MASS, shape)
    bullet.changeDynamics(
        ball,
        -1,
        lateralFriction=1.1,
        rollingFriction=0.03,
        spinningFriction=0.03,
        restitution=0.7,
        localInertiaDiagonal=[BALL_INERTIA] * 3,
    )
    return ball


def add_box(world: World) -> tuple[int, int]:
    """Adds the box, whose frame is at its bottom, and the joint that pulls it along."""
    bullet = world.bullet
    box = world.add_box(BOX_HALF_EXTENTS, (0.0, 0.0, BOX_HALF_EXTENTS[2]), mass=BOX_MASS)
    bullet.changeDynamics(
        box, -1, lateralFriction=0.9, restitution=0.4, localInertiaDiagonal=BOX_INERTIA
    )
    joint: int = bullet.createConstraint(
        box, -1, -1, -1, bullet.JOINT_FIXED, [0, 0, 0], [0, 0, 0], [0, 0, 0]
    )
    return box, joint
