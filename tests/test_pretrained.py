"""The agent that comes with the package: small, quick to load, its origin stated, and safe."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import wilcoxon

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_policy
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_diffusion_agent.storage import FILE_NAME, PRETRAINED, pretrained_names

NUM_EPISODES = 20
SEEDS = [start_seed(7, episode) for episode in range(NUM_EPISODES)]
CHANGED_AT = 80


def run(budget, changes=None):
    agent = TrebiAgent.load("pendulum", device="cpu")
    budgets = [budget] * NUM_EPISODES
    return rollout(agent.act, "safe/Pendulum-v0", budgets, SEEDS, budget_changes=changes)


@pytest.mark.parametrize("name", pretrained_names())
def test_is_small_and_says_what_made_it(name):
    assert (PRETRAINED / name / FILE_NAME).stat().st_size < 10e6
    about = TrebiAgent.load(name).about
    assert about["provenance"]["command"].startswith("trebi run safe/")
    assert about["seed"] == 0
    assert "/" not in about["provenance"]["command"].replace("safe/", "").replace("runs/", "")


def test_answers_in_about_a_second():
    """Imports included it is mostly PyTorch's start; what is ours is a fraction of a second."""
    code = (
        "import torch, time; start = time.perf_counter();"
        "from safe_diffusion_agent import TrebiAgent;"
        "TrebiAgent.load('pendulum').act([-1.0, 0.0, 0.0], 12.5, 200);"
        "print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 5.0


def test_cutting_the_budget_lowers_the_later_cost():
    unchanged, cut = run(60.0), run(60.0, {CHANGED_AT: 8.0})
    later = [r.costs[CHANGED_AT:].sum(axis=0) for r in (unchanged, cut)]
    np.testing.assert_array_equal(unchanged.costs[:CHANGED_AT], cut.costs[:CHANGED_AT])
    assert later[1].mean() < 0.5 * later[0].mean()
    assert wilcoxon(later[0], later[1], alternative="greater").pvalue < 0.001


def test_raising_the_budget_raises_the_later_return():
    unchanged, raised = run(8.0), run(8.0, {CHANGED_AT: 60.0})
    later = [r.rewards[CHANGED_AT:].sum(axis=0) for r in (unchanged, raised)]
    assert wilcoxon(later[1], later[0], alternative="greater").pvalue < 0.001


def test_keeps_its_budgets_as_the_quickstart_must():
    """Median cost within the budget from ratio 0.4 on; return within 25 % of the behavior's."""
    agent = TrebiAgent.load("pendulum", device="cpu")
    config = EvaluationConfig(num_episodes=10, seed=7)
    results = evaluate_policy(agent.act, "safe/Pendulum-v0", config)
    for ratio in (0.4, 0.6, 0.8, 1.0):
        costs = [result.normalized_cost for result in results if result.ratio == ratio]
        assert np.median(costs) <= 1.0
    full = [result.episode_return for result in results if result.ratio == 1.0]
    assert np.mean(full) >= 0.75 * agent.about["behavior_policy"]["mean_return"]


def test_an_unlimited_budget_is_spent_for_return():
    unlimited, small = run(np.inf), run(12.0)
    # From the same start states; the optimum itself gains only 1.5 (see `optimum`).
    gain = unlimited.rewards.sum(axis=0) - small.rewards.sum(axis=0)
    assert gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(len(gain))
    assert unlimited.costs.sum(axis=0).mean() > 36
