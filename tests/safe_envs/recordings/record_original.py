"""Records `car_circle.npz` and `ball_reach.npz` anew from the original Bullet-Safety-Gym.

    git clone https://github.com/SvenGronauer/Bullet-Safety-Gym FOLDER
    git -C FOLDER checkout df7f9a22b52bad90df4fcf5769e9490ca46146ad
    PYTHONPATH=FOLDER python tests/safe_envs/recordings/record_original.py [--write]

Seeds and actions are those of the files, whose episodes were chosen to cover walls, box, puddles
and goals. Each episode gets a fresh environment of the original, seeded as the original can be: by
the global generators, before it is built. What comes back is compared with the file; with `--write`
it replaces it. Two things are put in the original's way, and none of its code is changed: Gymnasium
stands in for `gym`, and simulated time for the wall clock that its box follows.
"""

import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np

FOLDER = Path(__file__).parent
NUM_EPISODES = 6
DT = 1 / 60
FILES = {"car_circle": "SafetyCarCircle-v0", "ball_reach": "SafetyBallReach-v0"}


def import_original() -> tuple[Any, Any]:
    """The original's builder, and what its environments are built from, by id."""
    specs: dict[str, dict] = {}
    registration = ModuleType("gym.envs.registration")
    registration.register = lambda id, kwargs, **_: specs.update({id: kwargs})
    stand_in = ModuleType("gym")
    stand_in.Env, stand_in.spaces = gymnasium.Env, gymnasium.spaces
    modules = {"gym": stand_in, "gym.envs": ModuleType("gym.envs")}
    sys.modules.update(modules | {"gym.envs.registration": registration})
    from bullet_safety_gym.envs import builder

    return builder, specs


def record(builder: Any, kwargs: dict, seed: int, actions: np.ndarray) -> dict[str, np.ndarray]:
    from bullet_safety_gym.envs import bases

    clock = SimpleNamespace(now=0.0)
    bases.time = SimpleNamespace(time=lambda: clock.now)
    np.random.seed(seed)  # noqa: NPY002  # the original has no other way
    random.seed(seed)
    env = builder.EnvironmentBuilder(**kwargs)
    observations, rewards, costs = [env.reset()], [], []
    for index, action in enumerate(actions):
        clock.now = DT * (index + 1)
        observation, reward, _, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        costs.append(info["cost"])
    env.close()
    return {
        "observations": np.array(observations),
        "rewards": np.array(rewards, np.float64),
        "costs": np.array(costs, np.float64),
    }


def main() -> None:
    builder, specs = import_original()
    for name, env_id in FILES.items():
        path = FOLDER / f"{name}.npz"
        recording = dict(np.load(path, allow_pickle=False))
        for episode in range(NUM_EPISODES):
            key = f"ep{episode}_"
            seed, actions = int(recording[key + "seed"]), recording[key + "actions"]
            for part, values in record(builder, specs[env_id], seed, actions).items():
                difference = np.abs(values - recording[key + part]).max()
                print(f"{name} episode {episode}: {part} differ by {difference:.1e} at most")
                recording[key + part] = values
        if "--write" in sys.argv:
            np.savez_compressed(path, **recording)


if __name__ == "__main__":
    main()
