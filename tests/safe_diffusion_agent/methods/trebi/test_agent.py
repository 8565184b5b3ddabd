import math
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy

import safe_diffusion_agent
from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.errors import CheckpointError, UnknownNameError
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi import agent as trebi_agent
from safe_diffusion_agent.methods.trebi.agent import DiffuserAgent
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_envs import BudgetObservation

HORIZON = METHODS["trebi"].config("quick").model.horizon
HANGING = np.array([-1.0, 0.0, 0.0], np.float32)


def seeded(agent, seed=0):
    return torch.Generator(agent.device).manual_seed(seed)


def states(num, seed=0):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-np.pi, np.pi, num)
    return np.stack([np.cos(angles), np.sin(angles), rng.uniform(-4, 4, num)], axis=1)


def test_shapes_for_one_state_and_for_many(tiny_agent):
    assert tiny_agent.act(HANGING, 10.0, 200).shape == (1,)
    assert tiny_agent.act(states(5), 10.0, 200).shape == (5, 1)
    assert tiny_agent.act(states(5), np.arange(5.0), np.arange(1, 6)).shape == (5, 1)
    plan = tiny_agent.plan(states(3), [1.0, 2.0, 3.0], 100, return_candidates=True)
    assert plan.actions.shape == (3, HORIZON, 1) and plan.observations.shape == (3, HORIZON, 3)
    assert plan.predicted_return.shape == plan.predicted_cost.shape == plan.feasible.shape == (3,)
    assert plan.feasible.dtype == bool
    assert plan.candidates.actions.shape == (3, 16, HORIZON, 1)
    assert plan.candidates.predicted_cost.shape == (3, 16)
    assert tiny_agent.plan(states(3), 1.0, 100).candidates is None


def test_plan_starts_at_the_observation_and_stays_in_the_action_space(tiny_agent):
    obs = states(4)
    plan = tiny_agent.plan(obs, 5.0, 50)
    np.testing.assert_allclose(plan.observations[:, 0], obs, atol=1e-5)
    assert (np.abs(plan.actions) <= 2.0 + 1e-6).all()
    assert plan.actions.dtype == np.float32


def test_chosen_plan_is_the_best_candidate_within_the_budget(tiny_agent):
    """The rule of App. D, searched for by hand among the candidates that the plan reports."""
    budgets = np.array([-5.0, 0.0, 2.0, 8.0, 20.0, 60.0, math.inf])
    plan = tiny_agent.plan(states(7), budgets, 150, return_candidates=True)
    margin = tiny_agent.config.planner.budget_margin * tiny_agent.task.max_budget
    for row, budget in enumerate(budgets):
        costs, returns = plan.candidates.predicted_cost[row], plan.candidates.predicted_return[row]
        within = [k for k in range(16) if costs[k] <= budget - margin]
        best = max(within, key=lambda k: returns[k]) if within else int(np.argmin(costs))
        assert plan.candidates.chosen[row] == best
        assert plan.feasible[row] == bool(within)
        np.testing.assert_array_equal(plan.actions[row], plan.candidates.actions[row, best])
        assert plan.predicted_cost[row] == costs[best]
    assert plan.feasible[-1], "without a constraint every plan is feasible"


def test_same_noise_same_action_and_no_other_generator_moves(tiny_agent):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = tiny_agent.act(states(3), 10.0, 100, generator=seeded(tiny_agent))
    again = tiny_agent.act(states(3), 10.0, 100, generator=seeded(tiny_agent))
    other = tiny_agent.act(states(3), 10.0, 100, generator=seeded(tiny_agent, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_same_seed_same_actions_after_loading(tiny_agent, tmp_path):
    tiny_agent.save(tmp_path)
    agents = [TrebiAgent.load(tmp_path, device=tiny_agent.device, seed=s) for s in (5, 5, 6)]
    actions = [np.stack([agent.act(obs, 10.0, 100) for obs in states(4)]) for agent in agents]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])


def test_saving_and_loading_changes_nothing(tiny_agent, tmp_path):
    tiny_agent.save(tmp_path / "agent")
    loaded = TrebiAgent.load(tmp_path / "agent", device=tiny_agent.device)
    assert (loaded.config, loaded.task, loaded.about) == (
        tiny_agent.config, tiny_agent.task, tiny_agent.about,
    )  # fmt: skip
    expected = tiny_agent.plan(states(3), 10.0, 100, generator=seeded(tiny_agent))
    plan = loaded.plan(states(3), 10.0, 100, generator=seeded(loaded))
    np.testing.assert_array_equal(plan.actions, expected.actions)
    np.testing.assert_array_equal(plan.predicted_cost, expected.predicted_cost)
    assert {"python", "torch"} <= loaded.about["provenance"]["versions"].keys()


def test_planner_settings_can_be_changed_when_loading(tiny_agent, tmp_path):
    tiny_agent.save(tmp_path)
    agent = TrebiAgent.load(tmp_path, num_candidates=3, cost_quantile=None)
    plan = agent.plan(HANGING, 10.0, 100, return_candidates=True)
    assert plan.candidates.actions.shape[1] == 3
    with pytest.raises(UnknownNameError, match="no setting that training leaves open 'horizon'"):
        TrebiAgent.load(tmp_path, horizon=8)
    with pytest.raises(UnknownNameError, match="Did you mean 'num_candidates'"):
        TrebiAgent.load(tmp_path, num_candidate=8)
    with pytest.raises(ValueError, match="cost_quantile should be None or one of"):
        TrebiAgent.load(tmp_path, cost_quantile=0.5)


def test_a_state_is_planned_for_in_the_same_way_in_any_batch(tiny_agent):
    """With the noise of each state fixed, what else is in the batch does not matter."""

    agent, num = tiny_agent, 16
    obs = states(3)
    sampler = agent.planner.judge.sampler
    noise = sampler.draw_noise(num, agent.new_generator())

    def plan(rows):
        return agent.plan(
            obs[rows], np.array([3.0, 20.0, 60.0])[rows], np.array([9, 90, 190])[rows]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "draw_noise", lambda n, _: noise.repeat(1, n // num, 1, 1))
        together = plan([0, 1, 2])
        for row in range(3):
            alone = plan([row])
            np.testing.assert_allclose(alone.actions[0], together.actions[row], atol=1e-4)
            np.testing.assert_allclose(
                alone.predicted_cost[0], together.predicted_cost[row], rtol=1e-3, atol=1e-3
            )


def test_large_batches_are_planned_in_chunks(tiny_agent, tmp_path, monkeypatch):
    tiny_agent.save(tmp_path)
    monkeypatch.setattr(trebi_agent, "MAX_TRAJECTORIES", 32)
    agent = TrebiAgent.load(tmp_path, device=tiny_agent.device)
    sizes = []
    original = agent.networks.denoiser.forward

    def recording(x, step):
        sizes.append(len(x))
        return original(x, step)

    monkeypatch.setattr(agent.networks.denoiser, "forward", recording)
    assert agent.act(states(5), 10.0, 100).shape == (5, 1)
    assert max(sizes) == 32 and sum(sizes) == 5 * 16 * 10
    sizes.clear()
    assert agent.plan(states(5), 10.0, 100).actions.shape[0] == 5
    assert max(sizes) == 32 and sum(sizes) == 5 * 16 * 10
    sizes.clear()
    feasible = agent.feasibility(states(5), 10.0, 100, num_samples=8)
    assert feasible.safe_mass.shape == (5,)
    assert max(sizes) == 32 and sum(sizes) == 5 * (16 + 8) * 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([np.nan, 0, 0], 1.0, 9), r"obs should be finite. Received nan at \[0, 0\]"),
        (([[1, 0, 0], [1, 0, np.inf]], 1.0, 9), r"Received inf at \[1, 2\]"),
        (([1.0, 0.0], 1.0, 9), r"obs should have shape \(3,\) or \(n, 3\). Received \(2,\)"),
        ((np.zeros((2, 2, 3)), 1.0, 9), r"obs should have shape"),
        ((np.zeros((0, 3)), 1.0, 9), r"obs should have shape"),
        ((HANGING, math.nan, 9), "remaining_budget should be a number, or math.inf"),
        ((HANGING, [1.0, 2.0], 9), r"one per state \(1,\). Received \(2,\)"),
        ((np.zeros((3, 3)), [1.0, 2.0], 9), r"one per state \(3,\). Received \(2,\)"),
        ((HANGING, 1.0, 0), "remaining_steps should be from 1 to 200. Received 0"),
        ((HANGING, 1.0, 201), "remaining_steps should be from 1 to 200"),
    ],
)
def test_bad_input_is_refused(tiny_agent, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_agent.act(*arguments)


def test_an_infinite_budget_means_no_constraint(tiny_agent):
    """It plans exactly as with a budget that nothing can exceed, or with no penalty."""
    plans = [
        tiny_agent.plan(states(6), budget, 100, generator=seeded(tiny_agent))
        for budget in (math.inf, 1e9)
    ]
    np.testing.assert_array_equal(plans[0].actions, plans[1].actions)
    assert plans[0].feasible.all()


def test_without_the_steps_left_it_warns_and_plans_for_the_whole_episode(tiny_agent):
    with pytest.warns(UserWarning, match="give it the remaining_steps"):
        action = tiny_agent.act(HANGING, 10.0, generator=seeded(tiny_agent))
    expected = tiny_agent.act(HANGING, 10.0, 200, generator=seeded(tiny_agent))
    np.testing.assert_array_equal(action, expected)


def test_time_blind_agents_need_no_steps(tiny_episodes):
    config = METHODS["trebi"].config(
        "quick", time_to_go=False, windows="inside", num_steps=2, batch_size=4
    )
    agent, _ = fit(tiny_episodes, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agent.act(HANGING, 10.0).shape == (1,)


def test_networks_that_give_no_finite_action_are_an_error(tiny_agent, monkeypatch):
    def broken(x, step):
        return x * math.nan

    monkeypatch.setattr(tiny_agent.networks.denoiser, "forward", broken)
    for method in (tiny_agent.act, tiny_agent.plan):
        with pytest.raises(FloatingPointError, match="no finite action"):
            method(HANGING, 10.0, 100)


@pytest.mark.parametrize("options", [{}, {"remaining_steps": True}, {"flat": True}])
def test_predict_is_act_with_the_budget_from_the_observation(tiny_agent, options):
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=9.0, **options)
    obs, info = env.reset(seed=0)
    state, start = None, np.array([True])
    for step in range(3):
        action, state = tiny_agent.predict(obs, state, start)
        plain = env.unwrapped._get_obs()
        expected = tiny_agent.act(
            plain, info["remaining_budget"], 200 - step, generator=seeded(tiny_agent)
        )
        np.testing.assert_allclose(action, expected, atol=1e-5)
        obs, *_, info = env.step(action)
        start = np.array([False])


def test_predict_counts_the_steps_of_each_episode_in_its_state(tiny_agent):
    batch = {"observation": np.stack([HANGING] * 2), "remaining_budget": np.full((2, 1), 5.0)}
    _, state = tiny_agent.predict(batch)
    _, state = tiny_agent.predict(batch, state, np.array([False, False]))
    assert state[0].tolist() == [2, 2]
    _, state = tiny_agent.predict(batch, state, np.array([False, True]))
    assert state[0].tolist() == [3, 1]


def test_predict_without_a_budget_says_what_to_do(tiny_agent):
    with pytest.raises(ValueError, match="BudgetObservation"):
        tiny_agent.predict(HANGING)


def test_stable_baselines_evaluates_it(tiny_agent):
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=9.0)
    returns, lengths = evaluate_policy(
        tiny_agent, env, n_eval_episodes=1, return_episode_rewards=True, warn=False
    )
    assert lengths == [200] and 0 < returns[0] < 200


def test_unknown_and_damaged_agents(tiny_agent, tmp_path):
    with pytest.raises(UnknownNameError, match="no folder or pretrained agent 'pendulm'"):
        TrebiAgent.load("pendulm")
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        TrebiAgent.load(tmp_path)
    tiny_agent.save(tmp_path)
    file = tmp_path / "agent.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        TrebiAgent.load(tmp_path)


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="finds no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


@pytest.mark.cuda
def test_cuda_plans_like_the_cpu_with_the_same_noise(tiny_agent, tmp_path):
    tiny_agent.save(tmp_path)
    plans = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)  # on the CPU, for both
        agent = TrebiAgent.load(tmp_path, device=device)
        plans.append(agent.plan(states(3), 9.0, 100, generator=generator))
    np.testing.assert_allclose(plans[0].predicted_cost, plans[1].predicted_cost, rtol=1e-2)
    np.testing.assert_allclose(plans[0].actions, plans[1].actions, atol=1e-2)


SMALL = {"num_steps": 1, "batch_size": 2, "horizon": 8}
UNET = {"base_width": 16, "width_mults": (1, 2)}
FRONTIER = {
    "model_steps": 1,
    "critic_steps": 1,
    "imitation_steps": 1,
    "num_branches": 6,
    "calibration_episodes": 0,
}


@pytest.mark.parametrize(
    ("preset", "settings", "num_files"),
    [("paper", UNET, 5), ("quick", {}, 5), ("frontier", FRONTIER | {"risk": None}, 9)],
)
def test_one_act_is_traced_through_few_files(tiny_episodes, preset, settings, num_files):
    """All files of the package are counted, that of the interface included; one knows of rest."""
    config = METHODS["trebi"].config(preset, "safe/Pendulum-v0", **SMALL, **settings)
    agent, _ = fit(tiny_episodes, config, device="cpu")
    package, executed = str(Path(safe_diffusion_agent.__file__).parent), set()

    def trace(frame, event, _):
        if frame.f_code.co_filename.startswith(package):
            executed.add(frame.f_code.co_filename)

    sys.setprofile(trace)
    try:
        agent.act(HANGING, 10.0, 100)
    finally:
        sys.setprofile(None)
    assert {package + "/agent.py", trebi_agent.__file__} < executed
    assert len(executed) <= num_files, executed


def test_diffuser_plans_what_it_executes_whatever_the_budget(tiny_agent, tmp_path):
    parts = (tiny_agent.networks, tiny_agent.normalizer, tiny_agent.config, tiny_agent.task)
    agent = DiffuserAgent(*parts, tiny_agent.calibration, device=tiny_agent.device)
    unlimited = tiny_agent.plan(states(6), math.inf, 100, generator=seeded(agent))
    for budget in (-5.0, 0.0, np.linspace(-1.0, 60.0, 6), math.inf):
        plan = agent.plan(states(6), budget, 100, generator=seeded(agent), return_candidates=True)
        np.testing.assert_array_equal(plan.actions, unlimited.actions)
        np.testing.assert_array_equal(
            agent.act(states(6), budget, 100, generator=seeded(agent)),
            np.clip(plan.actions[:, 0], -2.0, 2.0),
        )
        best = plan.candidates.predicted_return.argmax(axis=1)
        np.testing.assert_array_equal(plan.candidates.chosen, best)
        assert plan.feasible.all() and (plan.num_fitting == 16).all()
        assert plan.explain().startswith("There is no budget to keep. 16 of the candidates fit;")
    limited = tiny_agent.plan(states(6), 0.0, 100, generator=seeded(agent))
    assert not np.array_equal(limited.actions, unlimited.actions), "TREBI looks at the budget"
    with pytest.raises(ValueError, match="remaining_budget should be a number"):
        agent.plan(states(6), math.nan, 100)


def test_how_likely_diffuser_keeps_a_budget_depends_on_it(tiny_agent):
    parts = (tiny_agent.networks, tiny_agent.normalizer, tiny_agent.config, tiny_agent.task)
    agent = DiffuserAgent(*parts, tiny_agent.calibration, device=tiny_agent.device)
    budgets = np.array([-5.0, 0.0, 10.0, 1e4, math.inf])
    obs = np.tile(HANGING, (5, 1))
    feasible = agent.feasibility(obs, budgets, 150, num_samples=8, generator=seeded(agent))
    for values in (feasible.safe_mass, feasible.keep_probability):
        assert values[0] == 0 and values[-2] > 0.9 and values[-1] > 0.9
    least_cost = agent.plan(obs, budgets, 150, generator=seeded(agent)).least_cost
    expected = [agent.calibration.probability_within(torch.tensor([b - c]))[0].item()
                for b, c in zip(budgets[1:], least_cost[1:], strict=True)]  # fmt: skip
    np.testing.assert_allclose(feasible.keep_probability[1:], expected, rtol=1e-5)


def test_executed_actions_are_in_the_action_space(tiny_agent, tmp_path):
    """Plans of the paper may leave it; what is executed does not."""
    tiny_agent.save(tmp_path)
    wild = TrebiAgent.load(tmp_path, clip=False)
    wild.normalizer.std[0] = 1e3
    assert (np.abs(wild.plan(states(3), 10.0, 100).actions[:, 0]) > 2.0).all()
    actions = wild.act(states(3), 10.0, 100)
    assert actions.shape == (3, 1) and actions.dtype == np.float32
    assert (np.abs(actions) == 2.0).all() and abs(wild.act(HANGING, 10.0, 100)[0]) == 2.0
