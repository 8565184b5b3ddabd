"""Our BCQ, unconstrained, against d3rlpy's: the same data, sizes and steps, and similar returns."""

import subprocess
import sys

import numpy as np
import pytest

from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_agent
from safe_diffusion_agent.methods.baselines.bcq import PRESETS, BcqAgent
from safe_diffusion_agent.methods.baselines.fitting import fit
from safe_diffusion_agent.settings import override

NUM_STEPS, BATCH_SIZE, NUM_EPISODES = 3_000, 100, 10

D3RLPY = """
import sys, d3rlpy, numpy as np
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_policy
dataset_id, num_steps, batch_size, num_episodes = sys.argv[1], *map(int, sys.argv[2:])
episodes = load_episodes(dataset_id)
ends = np.cumsum(episodes.lengths) - 1
rows = np.arange(len(episodes.rewards)) + np.repeat(np.arange(len(ends)), episodes.lengths)
timeouts = np.zeros(len(episodes.rewards))
timeouts[ends] = 1.0
data = d3rlpy.dataset.MDPDataset(
    episodes.observations[rows], episodes.actions, episodes.rewards.astype(np.float32),
    np.zeros_like(timeouts), timeouts,
)
d3rlpy.seed(0)
bcq = d3rlpy.algos.BCQConfig(
    batch_size=batch_size, n_action_samples=10, rl_start_step=0,
    observation_scaler=d3rlpy.preprocessing.StandardObservationScaler(),
    action_scaler=d3rlpy.preprocessing.MinMaxActionScaler(),
).create(device=False)
bcq.fit(
    data, n_steps=num_steps, n_steps_per_epoch=num_steps, show_progress=False,
    logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
)
results = evaluate_policy(
    lambda obs, *_: bcq.predict(obs.astype(np.float32)), "safe/Pendulum-v0",
    EvaluationConfig(ratios=(1.0,), num_episodes=num_episodes),
)
print("RETURN", np.mean([result.episode_return for result in results]))
"""


@pytest.mark.slow
def test_unconstrained_returns_are_close(tiny_dataset, tiny_episodes):
    pytest.importorskip("d3rlpy", reason="d3rlpy is in the dev extra", exc_type=ImportError)
    arguments = [tiny_dataset, NUM_STEPS, BATCH_SIZE, NUM_EPISODES]
    command = [sys.executable, "-W", "ignore", "-c", D3RLPY, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    theirs = float(result.stdout.rpartition("RETURN")[2])

    config = override(
        PRESETS["quick"],
        {"num_steps": NUM_STEPS, "batch_size": BATCH_SIZE, "width": 256,
         "actor_learning_rate": 1e-3, "num_target_actions": 10},
    )  # fmt: skip
    agent, _ = fit(BcqAgent, tiny_episodes, config, device="cpu")
    evaluation = EvaluationConfig(ratios=(1.0,), num_episodes=NUM_EPISODES)
    results = evaluate_agent(agent, "safe/Pendulum-v0", evaluation)
    ours = np.mean([result.episode_return for result in results])
    data = tiny_episodes.episode_returns.mean()
    print(f"data {data:.1f}, d3rlpy {theirs:.1f}, ours {ours:.1f}")
    assert ours > data and ours > theirs - 15.0
