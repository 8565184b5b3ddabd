"""What every method keeps, whatever it is. A new row of METHODS is tested by being there."""

import copy
import json
import math
from contextlib import nullcontext
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from safe_diffusion_agent.errors import CheckpointError, UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments.stages import evaluate, train
from safe_diffusion_agent.methods.table import METHODS, load_agent, method_of
from safe_diffusion_agent.settings import change, from_json, group_of_setting
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint

SMALL = {"num_steps": 6, "batch_size": 32}
SMALLER = {
    "trebi": {"mlp_width": 64},
    "diffuser": {"mlp_width": 64},
    "cpq": {"ratios": (0.2, 1.0)},
    "bcq-lagrangian": {"ratios": (0.2, 1.0)},
}
OBSERVATIONS = np.array([[-1.0, 0.0, 0.0], [0.9, 0.1, 2.0], [0.0, 1.0, -3.0]], np.float32)
BUDGETS, STEPS = np.array([0.5, 30.0, math.inf]), np.array([200, 50, 1])

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def agents(tiny_episodes):
    made = {}

    def agent(method):
        if method not in made:
            config = METHODS[method].config("quick", **SMALL, **SMALLER.get(method, {}))
            made[method], _ = METHODS[method].fit(tiny_episodes, config, seed=0, device="cpu")
        return made[method]

    return agent


@every_method
def test_every_method_has_the_two_presets_and_configs_that_survive_json(method):
    for preset in ("paper", "quick"):
        config = METHODS[method].config(preset, "safe/Pendulum-v0")
        assert config.preset == preset
        assert from_json(type(config), json.loads(json.dumps(asdict(config)))) == config


@every_method
def test_acts_on_one_state_and_on_many(agents, method):
    agent = agents(method)
    one = agent.act(OBSERVATIONS[0], 10.0, 100)
    many = agent.act(OBSERVATIONS, BUDGETS, STEPS)
    assert one.shape == (1,) and many.shape == (3, 1)
    assert one.dtype == many.dtype == np.float32
    assert np.abs(many).max() <= 2.0
    assert np.isfinite(agent.act(OBSERVATIONS, -5.0, 3)).all()


@every_method
def test_same_seed_same_actions_and_new_noise_goes_on(agents, method):
    agent = agents(method)
    actions = [
        agent.act(OBSERVATIONS, BUDGETS, STEPS, generator=agent.new_generator()) for _ in range(2)
    ]
    np.testing.assert_array_equal(*actions)


@every_method
def test_a_saved_agent_acts_the_same(agents, method, tmp_path):
    agent = agents(method)
    agent.save(tmp_path)
    loaded = load_agent(tmp_path, device="cpu")
    assert type(loaded) is type(agent) and loaded.config == agent.config
    assert loaded.task == agent.task and loaded.about == json.loads(json.dumps(agent.about))
    np.testing.assert_array_equal(
        agent.act(OBSERVATIONS, BUDGETS, STEPS, generator=agent.new_generator()),
        loaded.act(OBSERVATIONS, BUDGETS, STEPS, generator=loaded.new_generator()),
    )
    other = "caps" if method != "caps" else "bc"
    with pytest.raises(CheckpointError, match=f"should be a checkpoint of {other!r}"):
        METHODS[other].agent_class.load(tmp_path)
    with pytest.raises(UnknownNameError, match="num_stepps"):
        load_agent(tmp_path, num_stepps=3)


@every_method
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0], 1.0, 10), r"shape \(3,\) or \(n, 3\). Received \(2,\)"),
        (([0.0, math.nan, 0.0], 1.0, 10), "finite. Received nan at"),
        ((OBSERVATIONS[0], math.nan, 10), "remaining_budget should be a number"),
        ((OBSERVATIONS, [1.0, 2.0], 10), r"one per state \(3,\)"),
        ((OBSERVATIONS[0], 1.0, 0), "remaining_steps should be from 1 to 200"),
    ],
)
def test_refuses_what_makes_no_sense(agents, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        agents(method).act(*arguments)


@every_method
def test_a_training_that_was_killed_ends_like_one_that_was_not(tiny_episodes, method, tmp_path):
    settings = SMALL | SMALLER.get(method, {})
    config = METHODS[method].config("quick", **settings)
    whole, _ = METHODS[method].fit(tiny_episodes, config, seed=3, device="cpu")

    def killed(done, total, **_):
        if done == total - 2:
            raise KeyboardInterrupt

    options = {"seed": 3, "device": "cpu", "state_path": tmp_path / "training.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        METHODS[method].fit(tiny_episodes, config, **options, save_interval=1, progress=killed)
    again, _ = METHODS[method].fit(tiny_episodes, config, **options)
    np.testing.assert_array_equal(
        whole.act(OBSERVATIONS, BUDGETS, STEPS, generator=whole.new_generator()),
        again.act(OBSERVATIONS, BUDGETS, STEPS, generator=again.new_generator()),
    )


@pytest.mark.parametrize("method", ["cpq", "bcq-lagrangian"])
def test_methods_of_fixed_budgets_act_by_the_budget_of_the_episode(agents, method):
    agent = copy.deepcopy(agents(method))
    for parameter in agent.networks[1].parameters():
        parameter.data.mul_(1.5)  # so short a training leaves both budgets nearly the same
    strict, lax = agent.for_budget(14.0), agent.for_budget(math.inf)
    assert (strict.config.ratios, lax.config.ratios) == ((0.2,), (1.0,))

    def act(one, budget):
        return one.act(OBSERVATIONS, budget, 100, generator=one.new_generator())

    np.testing.assert_array_equal(act(strict, 12.0), act(strict, 60.0))
    assert not np.array_equal(act(strict, 12.0), act(lax, 12.0))
    np.testing.assert_array_equal(act(agent, 12.0), act(strict, 12.0))
    np.testing.assert_array_equal(act(agent, math.inf), act(lax, 12.0))


def test_unconstrained_methods_do_not_look_at_the_budget(agents):
    for name, method in METHODS.items():
        if not method.constrained:
            agent = agents(name)
            actions = [
                agent.act(OBSERVATIONS, budget, STEPS, generator=agent.new_generator())
                for budget in (0.0, 60.0)
            ]
            np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("method", ["caps", "cpq"])
def test_the_road_from_data_to_results(tiny_dataset, tmp_path, method):
    settings = SMALL | SMALLER.get(method, {})
    agent = train(tiny_dataset, tmp_path, method=method, settings=settings, device="cpu")
    assert (tmp_path / "losses.csv").exists() and not list(tmp_path.glob("training*"))
    again = train(tiny_dataset, tmp_path, method=method, settings=settings, device="cpu")
    assert again.config == agent.config
    with pytest.raises(CheckpointError, match=f"method is {method!r}"):
        train(tiny_dataset, tmp_path, method="bc", settings=SMALL)
    config = EvaluationConfig(ratios=(0.2, 1.0), num_episodes=2, max_budget=60.0)
    document = evaluate(agent, tmp_path / "evaluation", config=config)
    assert document["agent"]["method"] == method
    assert [row["ratio"] for row in document["budgets"]] == [0.2, 1.0]


@every_method
def test_many_states_are_acted_on_in_chunks(agents, method, monkeypatch):
    """The memory is bounded; what is returned is in the order of the states."""
    agent, sizes = agents(method), []
    act = agent._act

    def counting(obs, *others):
        sizes.append(len(obs))
        return torch.arange(sum(sizes) - len(obs), sum(sizes))[:, None] / 10.0

    monkeypatch.setattr(agent, "_act", counting)
    monkeypatch.setattr(agent, "max_states", 3)
    actions = agent.act(np.tile(OBSERVATIONS, (3, 1))[:8], 10.0, 100)
    assert sizes == [3, 3, 2]
    np.testing.assert_allclose(actions[:, 0], np.arange(8) / 10.0, rtol=1e-6)
    monkeypatch.setattr(agent, "_act", act)
    budgets, steps = np.repeat([0.5, 30.0], 4), np.arange(100, 108)
    assert agent.act(np.tile(OBSERVATIONS, (3, 1))[:8], budgets, steps).shape == (8, 1)


@every_method
def test_what_is_executed_is_finite_and_in_the_action_space(agents, method, monkeypatch):
    agent = agents(method)
    wild = torch.tensor([[7.0], [-7.0], [0.5]])
    monkeypatch.setattr(agent, "_act", lambda *_: wild)
    assert agent.act(OBSERVATIONS, BUDGETS, STEPS).tolist() == [[2.0], [-2.0], [0.5]]
    wild[1] = math.nan
    with pytest.raises(FloatingPointError, match="no finite action"):
        agent.act(OBSERVATIONS, BUDGETS, STEPS)


@every_method
def test_a_checkpoint_that_does_not_fit_itself_is_refused(agents, method, tmp_path):
    agents(method).save(tmp_path)
    agent_class, file = METHODS[method].agent_class, tmp_path / "agent.safetensors"
    tensors, document = load_checkpoint(file, method)
    name = next(name for name in tensors if name.startswith("networks/"))
    broken = {
        "does not fit its own config": {k: t for k, t in tensors.items() if k != name},
        "should not: .'more'": tensors | {"more/x": torch.zeros(1)},
    }
    for message, of_file in broken.items():
        save_checkpoint(file, method, of_file, document)
        with pytest.raises(CheckpointError, match=message):
            agent_class.load(tmp_path)


@every_method
def test_only_what_training_leaves_open_can_be_changed_when_loading(agents, method, tmp_path):
    agents(method).save(tmp_path)
    agent_class = METHODS[method].agent_class
    with pytest.raises(UnknownNameError, match="no setting that training leaves open 'num_steps'"):
        agent_class.load(tmp_path, num_steps=7)
    for name in {"num_actions", "num_bisections"} & set(agent_class.changeable):
        assert f"{name}': 3" in str(asdict(agent_class.load(tmp_path, **{name: 3}).config))


OTHER_VALUES = {
    "actor_learning_rate": 0.05, "critic_learning_rate": 0.05, "generator_learning_rate": 0.05,
    "target_rate": 0.5, "discount": 0.5, "cost_discount": 0.5, "penalty": 7.0, "penalty_ramp": True,
    "budget_margin": 0.3, "risk": 0.3, "budget_scale": 2.0, "guidance_scale": 9.0,
    "num_candidates": 3, "clip": False, "sampling_steps": 2,
}  # fmt: skip


@pytest.mark.parametrize("method", [m for m in METHODS if m != "trebi"])
def test_what_is_refused_for_having_no_effect_has_none_and_all_else_has(tiny_episodes, method):
    """By trying: weights of a short training, and actions on a budget that matters."""
    chosen = METHODS[method]
    few = {"ratios": (0.2,)} if "ratios" in SMALLER.get(method, {}) else {}
    base = change(chosen.presets["quick"], {"num_steps": 3, "batch_size": 16, **few})

    def behavior(config):
        agent, _ = chosen.fit(tiny_episodes, config, seed=0, device="cpu")
        acted = agent.act(OBSERVATIONS, BUDGETS, STEPS, generator=agent.new_generator())
        weights = [tensor.ravel() for tensor in agent.networks.state_dict().values()]
        return torch.cat([torch.from_numpy(acted).ravel(), *weights])

    expected = behavior(base)
    for name in OTHER_VALUES.keys() & group_of_setting(type(base)).keys():
        given = {name: OTHER_VALUES[name]}
        same = torch.equal(behavior(change(base, given)), expected)
        with pytest.raises(ValueError, match=f"^{name} has no effect") if same else nullcontext():
            chosen.config("quick", **given)


def test_a_setting_without_effect_is_refused_when_loading(agents, tmp_path):
    agents("diffuser").save(tmp_path)
    with pytest.raises(ValueError, match="^penalty has no effect with this method"):
        load_agent(tmp_path, penalty=3.0)


def test_a_method_says_what_it_learns_from():
    assert {method.learns for method in METHODS.values()} == {"offline"}
    for name, method in METHODS.items():
        method.check_source(online=False)
        with pytest.raises(ValueError, match=f"^{name} learns from a dataset: give the id of one"):
            method.check_source(online=True)
    online, either = (replace(METHODS["caps"], learns=learns) for learns in ("online", "either"))
    online.check_source(online=True)
    with pytest.raises(ValueError, match="^caps learns in an environment: give the id of a task"):
        online.check_source(online=False)
    for source in (False, True):
        either.check_source(online=source)


def test_an_unknown_method_suggests_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'caps'"):
        method_of("cap")
