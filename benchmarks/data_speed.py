"""Time and peak memory of collecting, writing and loading a dataset of the size of HalfCheetah's.

    python benchmarks/data_speed.py [--steps 1000000]

Three stages, each in a process of its own on one thread:

    step    acts in the environments and keeps nothing
    record  the same with `record_episodes` and `write_dataset`: what recording costs on top
    load    `load_episodes`, and the first step of a training on windows of 32 steps

CPU seconds are the measure: on a shared machine, wall time is also that of others. Memory is the
peak of the process minus what it held after its imports. Writes results/datasets/speed.json.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import safe_envs  # noqa: F401
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import NUM_ENVS, record_episodes
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import provenance, write_text

ENV_ID = "safe/HalfCheetah-v0"
DATASET = "benchmark/halfcheetah-v0"
OUTPUT = Path(__file__).parent.parent / "results" / "datasets" / "speed.json"


def scripted_policy(observations):
    """Some feedback that keeps the legs moving; next to nothing to compute."""
    weights = np.random.default_rng(0).normal(size=(observations.shape[1], 6))
    return np.tanh(observations @ weights).astype(np.float32)


def step(num_steps: int, folder: Path) -> dict:
    done = 0
    envs = [gym.make(ENV_ID) for _ in range(NUM_ENVS)]
    while done < num_steps:
        observations = np.stack([env.reset(seed=done + k)[0] for k, env in enumerate(envs)])
        truncated = False
        while not truncated:
            for index, action in enumerate(scripted_policy(observations)):
                observations[index], _, _, truncated, _ = envs[index].step(action)
                done += 1
    return {"num_steps": done}


def record(num_steps: int, folder: Path) -> dict:
    episodes = record_episodes(scripted_policy, ENV_ID, num_steps, 0, folder / "rounds")
    write_dataset(DATASET, ENV_ID, episodes, {"cost_discount": 0.99, "max_episode_steps": 1000})
    files = [path for path in folder.rglob("main_data.hdf5")]
    return {"num_steps": num_steps, "file_mb": sum(path.stat().st_size for path in files) / 1e6}


def load(num_steps: int, folder: Path) -> dict:
    episodes = load_episodes(DATASET)
    values = [getattr(episodes, field.name) for field in dataclasses.fields(episodes)]
    data = sum(value.nbytes for value in values if isinstance(value, np.ndarray))
    config = METHODS["trebi"].config("small", num_steps=1, batch_size=32)
    METHODS["trebi"].fit(episodes, config, device="cpu")
    return {"num_steps": len(episodes.rewards), "data_mb": data / 1e6}


STAGES = {"step": step, "record": record, "load": load}


def resident_mb(kind: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/self/status has no {kind}.")


def measure(stage: str, num_steps: int, folder: Path) -> dict:
    torch.set_num_threads(1)
    before, started, spent = resident_mb("VmRSS"), time.perf_counter(), cpu_seconds()
    facts = STAGES[stage](num_steps, folder)
    return facts | {
        "cpu_seconds": cpu_seconds() - spent,
        "wall_seconds": time.perf_counter() - started,
        "peak_memory_mb": resident_mb("VmHWM") - before,
    }


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage is not None:
        print(json.dumps(measure(options.stage, options.steps, options.folder)))
        return
    document: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MINARI_DATASETS_PATH": folder, "OMP_NUM_THREADS": "1"}
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", folder]
            result = subprocess.run(
                [*command, "--steps", str(options.steps)],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            document[stage] = json.loads(result.stdout.splitlines()[-1])
            print(stage, document[stage], flush=True)
    recording = document["record"]["cpu_seconds"] / document["step"]["cpu_seconds"] - 1
    document["recording_over_stepping"] = recording
    document["load"]["memory_beyond_data_mb"] = (
        document["load"]["peak_memory_mb"] - document["load"]["data_mb"]
    )
    write_text(options.out, json.dumps(document | {"provenance": provenance()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
