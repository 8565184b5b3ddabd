"""Records `car_circle_dsrl.npz` from bullet-safety-gym 1.4.0, the fork that DSRL's data come from.

    pip install --no-deps --target FOLDER bullet-safety-gym==1.4.0
    PYTHONPATH=FOLDER python tests/safe_envs/recordings/record_dsrl.py

The fork asks for an older Gymnasium, and works with the present one as far as this needs it. Each
episode gets a fresh environment, whose car is put where our own `draw_start` says, motors off; one
simulation step follows, as in the fork's reset.
"""

from pathlib import Path

import numpy as np

NUM_STEPS, HOLD = 300, 20


def actions_of(policy: str, rng: np.random.Generator) -> np.ndarray:
    if policy == "held":
        return np.repeat(rng.uniform(-1.0, 1.0, (NUM_STEPS // HOLD, 2)), HOLD, axis=0)
    return np.tile([1.0, 0.0], (NUM_STEPS, 1))


def main() -> None:
    import bullet_safety_gym  # noqa: F401  # registers its environments
    import gymnasium as gym

    from safe_envs.bullet.car_circle import RANDOM_JOINTS, draw_start

    rng, recording = np.random.default_rng(3), {}
    for episode, policy in enumerate(("held", "straight")):
        original = gym.make("SafetyCarCircle-v0", disable_env_checker=True).unwrapped
        original.reset()
        start, bullet, car = draw_start(rng), original.bc, original.agent.body_id
        for joint in range(bullet.getNumJoints(car)):
            bullet.setJointMotorControl2(
                car, joint, bullet.VELOCITY_CONTROL, targetVelocity=0, force=0
            )
        bullet.restoreState(original.stored_state_id)
        for joint, angle in zip(RANDOM_JOINTS, start.joint_angles, strict=True):
            bullet.resetJointState(car, joint, angle, 0)
        orientation = bullet.getQuaternionFromEuler([0, 0, start.yaw])
        bullet.resetBasePositionAndOrientation(car, (*start.position, 0.2), orientation)
        bullet.stepSimulation()
        actions = actions_of(policy, rng)
        observations = [original.get_observation()]
        steps = [original.step(action) for action in actions]
        recording |= {
            f"ep{episode}_policy": policy,
            f"ep{episode}_agent_xy": start.position,
            f"ep{episode}_agent_yaw": start.yaw,
            f"ep{episode}_joint_angles": start.joint_angles,
            f"ep{episode}_actions": actions,
            f"ep{episode}_observations": observations + [step[0] for step in steps],
            f"ep{episode}_rewards": [step[1] for step in steps],
            f"ep{episode}_costs": [float(step[-1]["cost"]) for step in steps],
        }
    np.savez_compressed(Path(__file__).parent / "car_circle_dsrl.npz", **recording)


if __name__ == "__main__":
    main()
