"""Datasets of every quality from one short training, and their cards."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from minari.storage.datasets_root_dir import get_dataset_path
from stable_baselines3 import SAC

from safe_diffusion_agent.data import collection, levels, sac
from safe_diffusion_agent.data.collection import collect
from safe_diffusion_agent.data.levels import medium_snapshot
from safe_diffusion_agent.data.manifest import MANIFEST, capped
from safe_diffusion_agent.data.qualities import (
    QUALITIES,
    CollectConfig,
    default_dataset_id,
    default_state_dir,
    paper_max_budget,
)
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import NUM_ENVS, episode_seed, record_episodes
from safe_diffusion_agent.data.sac import SacTraining, Snapshot
from safe_diffusion_agent.errors import DatasetError, UnknownNameError
from safe_diffusion_agent.experiments import cards
from safe_diffusion_agent.experiments.cards import budget_shares, describe, measure_max_budget
from safe_diffusion_agent.experiments.pages.datasets import datasets_page
from safe_envs import TASKS

ENV_ID = "safe/Pendulum-v0"


def config_of(quality, num_steps=600):
    train_steps = None if quality.endswith("replay") else 600
    steps = 600 if quality.endswith("replay") else num_steps
    return CollectConfig(
        env_id=ENV_ID, quality=quality, num_steps=steps, train_steps=train_steps, seed=1
    )


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def datasets(state_dir):
    """All qualities. 600 steps of SAC do not beat a random policy, so that is made worse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "return_without_policy", lambda *_: -1000.0)
        return {
            quality: collect(
                config_of(quality), state_dir=state_dir, dataset_id=f"tests/quality/{quality}-v0"
            )
            for quality in QUALITIES
        }


def test_sizes_and_origins(datasets, state_dir):
    training = SacTraining(ENV_ID, 600, 1, state_dir)
    first, last = training.snapshots[0], training.snapshots[-1]
    assert (first.step, last.step) == (200, 600)
    expected = {
        "replay": (600, 600), "medium": (600, 200), "medium-replay": (200, 200),
        "expert": (600, 600), "medium-expert": (800, 600),
    }  # fmt: skip
    for quality, (num_steps, behavior_step) in expected.items():
        episodes = load_episodes(datasets[quality])
        assert len(episodes.rewards) == num_steps, quality
        assert episodes.metadata["behavior_policy"]["step"] == behavior_step, quality
        assert episodes.metadata["collect_config"]["quality"] == quality


def test_the_replays_are_what_sac_saw(datasets, state_dir):
    seen = list(SacTraining(ENV_ID, 600, 1, state_dir).episodes())
    for quality, count in (("replay", 3), ("medium-replay", 1)):
        stored = load_episodes(datasets[quality])
        expected = np.concatenate([episode["actions"] for episode in seen[:count]])
        np.testing.assert_array_equal(stored.actions, expected)


def test_halves_of_medium_expert_come_from_the_two_policies(datasets):
    mixed = load_episodes(datasets["medium-expert"])
    for first_step, quality in ((0, "medium"), (400, "expert")):
        alone = load_episodes(datasets[quality])
        np.testing.assert_array_equal(
            mixed.actions[first_step : first_step + 400], alone.actions[:400]
        )


def test_rolled_out_episodes_replay_in_the_environment(datasets):
    stored = load_episodes(datasets["medium"])
    env = gym.make(ENV_ID)
    for episode in range(3):
        obs, _ = env.reset(seed=episode_seed(1, episode))
        for step in range(200):
            row, index = episode * 201 + step, episode * 200 + step
            np.testing.assert_array_equal(obs, stored.observations[row])
            obs, reward, _, _, info = env.step(stored.actions[index])
            assert (reward, info["cost"]) == (stored.rewards[index], stored.costs[index])


def noisy_policy(observations):
    return torch.randn(len(observations), 1).clamp(-2, 2).numpy()


def test_interrupted_rollouts_are_the_uninterrupted_ones(tmp_path):
    num_steps = (NUM_ENVS + 3) * 200
    expected = list(record_episodes(noisy_policy, ENV_ID, num_steps, 5, tmp_path / "whole"))
    interrupted = record_episodes(noisy_policy, ENV_ID, num_steps, 5, tmp_path / "cut")
    for _ in range(4):
        next(interrupted)
    torch.manual_seed(123)  # another process would have another state
    before = torch.get_rng_state()
    resumed = list(record_episodes(noisy_policy, ENV_ID, num_steps, 5, tmp_path / "cut"))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(resumed) == len(expected) == NUM_ENVS + 3
    for mine, theirs in zip(resumed, expected, strict=True):
        np.testing.assert_array_equal(mine["actions"], theirs["actions"])
    assert not np.array_equal(expected[0]["actions"], expected[1]["actions"])


@pytest.mark.parametrize(
    ("returns", "chosen"), [([0, 29, 31, 90, 100], 2), ([40, 100], 0), ([5, 5, 100], 2)]
)
def test_medium_is_the_first_policy_past_a_third(returns, chosen, monkeypatch):
    class Training:
        env_id, seed, num_steps, target_return = ENV_ID, 0, 1000, None
        snapshots = [Snapshot(step, value, 0.0, 5) for step, value in enumerate(returns)]

    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -5.0)  # a third is at 30
    assert medium_snapshot(Training()).step == chosen
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: 100.0)
    with pytest.raises(DatasetError, match="Train longer"):
        medium_snapshot(Training())


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """A policy from elsewhere that was never trained; it still returns something."""
    path = tmp_path_factory.mktemp("elsewhere") / "sac.zip"
    SAC("MlpPolicy", gym.make(ENV_ID), policy_kwargs={"net_arch": [8]}, seed=0).save(path)
    return str(path)


def test_training_ends_at_a_third_of_an_expert_from_elsewhere(expert, tmp_path, monkeypatch):
    """The first snapshot is past a third, because nothing is far worse here."""
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -1000.0)
    monkeypatch.setattr(sac, "SNAPSHOT_INTERVAL", 200)
    config = CollectConfig(
        env_id=ENV_ID, quality="medium-expert", num_steps=800, train_steps=4000, expert=expert
    )
    name = collect(config, state_dir=tmp_path, dataset_id="tests/quality/from-elsewhere-v0")
    episodes = load_episodes(name)
    (snapshot,) = episodes.metadata["snapshots"]
    assert snapshot["step"] == 200
    half = len(episodes.rewards) // 2
    policy = SAC.load(expert)
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([0, 0]).generate_state(1)[0]))
        states = np.stack([gym.make(ENV_ID).reset(seed=episode_seed(0, k))[0] for k in range(16)])
        actions, _ = policy.predict(states, deterministic=False)
    np.testing.assert_allclose(episodes.actions[half], actions[0], rtol=1e-5)
    assert Path(expert).name in episodes.metadata["expert"]["name"]
    assert collect(config, state_dir=tmp_path, dataset_id=name) == name  # it is there
    other = tmp_path / "other.zip"
    SAC("MlpPolicy", gym.make(ENV_ID), policy_kwargs={"net_arch": [8]}, seed=1).save(other)
    with pytest.raises(DatasetError, match="expert is .sac.zip"):
        collect(replace(config, expert=str(other)), state_dir=tmp_path, dataset_id=name)


def test_rollouts_of_tasks_with_other_costs_are_recorded_apart(tmp_path, monkeypatch):
    """They share the training; an episode that falls costs more in one of them."""
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -1000.0)
    monkeypatch.setattr(sac, "MEASURED_EPISODES", 1)
    costs = {}
    for task in ("Hopper", "HopperSum"):
        config = CollectConfig(
            env_id=f"safe/{task}-v0", quality="expert", num_steps=1000, train_steps=1000
        )
        name = f"tests/apart/{task.lower()}-v0"
        collect(config, state_dir=tmp_path, dataset_id=name)
        episodes = load_episodes(name)
        costs[task] = np.add.reduceat(episodes.costs, np.cumsum([0, *episodes.lengths[:-1]]))
    falls = TASKS["safe/HopperSum-v0"].max_budget * episodes.terminated
    assert falls.any()
    np.testing.assert_allclose(costs["HopperSum"], costs["Hopper"] + falls)


def test_datasets_of_experts_have_cards_and_a_page(expert, tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -1000.0)
    monkeypatch.setattr(sac, "SNAPSHOT_INTERVAL", 200)
    config = CollectConfig(
        env_id=ENV_ID, quality="medium", num_steps=400, train_steps=4000, expert=expert
    )
    name = collect(config, state_dir=tmp_path / "state")
    assert name == "safe-envs/pendulum/medium-by-sac-v0"
    monkeypatch.setattr(cards, "MANIFEST", ())
    monkeypatch.setattr(cards, "BY_EXPERTS", (config,))
    document = json.loads(cards.describe_all(tmp_path / "cards").read_text())
    (line,) = document["datasets"]
    measured = load_episodes(name).metadata["expert"]
    assert (line["best_return"], line["sac_steps"]) == (measured["mean_return"], 200)
    page = datasets_page(tmp_path / "cards")
    assert f"{measured['mean_return']:.4g}, {measured['name']}" in page
    assert (tmp_path / "cards" / line["folder"] / "card.md").exists()


def test_a_third_that_is_not_reached_is_an_error(expert, tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "return_without_policy", lambda *_: -1e9)
    monkeypatch.setattr(levels, "medium_return", lambda *_: 1e9)
    monkeypatch.setattr(collection, "medium_return", lambda *_: 1e9)
    config = CollectConfig(env_id=ENV_ID, quality="medium", num_steps=400, expert=expert)
    with pytest.raises(DatasetError, match="Train longer"):
        collect(config, state_dir=tmp_path, dataset_id="tests/quality/never-medium-v0")
    missing = replace(config, expert="nowhere/sac.zip")
    with pytest.raises(DatasetError, match=r"docs/data\.md"):
        collect(missing, state_dir=tmp_path, dataset_id="tests/quality/never-medium-v0")


def test_tasks_that_differ_in_costs_alone_share_a_training():
    one, other = (
        CollectConfig(env_id=f"safe/{name}-v0", quality="medium", num_steps=1000)
        for name in ("Walker2d", "Walker2dSum")
    )
    assert default_state_dir(one) == default_state_dir(other)
    assert default_dataset_id(one.env_id) != default_dataset_id(other.env_id)
    with pytest.raises(ValueError, match="safe/Walker2d-v0 in its costs alone"):
        CollectConfig(env_id="safe/Walker2dSum-v0", num_steps=1000)


def test_to_do_nothing_beats_random_actions_with_halfcheetah():
    start = levels.return_without_policy("safe/HalfCheetah-v0", 0, num_episodes=1)
    assert -10.0 < start < 10.0
    again = levels.return_without_policy("safe/HalfCheetah-v0", 0, num_episodes=1)
    assert start == again


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'medium'"):
        CollectConfig(env_id=ENV_ID, quality="medum")
    with pytest.raises(ValueError, match="leave out train_steps"):
        CollectConfig(env_id=ENV_ID, quality="replay", num_steps=600, train_steps=800)
    with pytest.raises(ValueError, match="sac_steps should be at least one episode"):
        CollectConfig(env_id=ENV_ID, quality="expert", num_steps=600, train_steps=100)


def test_manifest_names_every_dataset_once_and_can_be_capped():
    ids = [default_dataset_id(config.env_id, config.quality) for config in MANIFEST]
    assert len(ids) == len(set(ids)) == 13
    ours = {"safe/ReacherReachable-v0"} | {n for n, spec in TASKS.items() if spec.same_but_costs}
    assert {config.env_id for config in MANIFEST} == set(TASKS) - ours
    for config, small in zip(MANIFEST, capped(MANIFEST, 50_000), strict=True):
        assert small.num_steps == min(config.num_steps, 50_000)
        assert small.sac_steps == min(config.sac_steps, 50_000)
        assert (small.env_id, small.quality) == (config.env_id, config.quality)
    assert capped(MANIFEST, None) == list(MANIFEST)
    with pytest.raises(ValueError, match="at least one episode"):
        capped(MANIFEST, 100)


def test_card_has_the_datasets_numbers(datasets, tmp_path):
    path = describe(datasets["replay"], tmp_path)
    text, episodes = path.read_text(), load_episodes(datasets["replay"])
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert f"]({path.stem}.png)" in text
    assert episodes.fingerprint in text
    assert f"| return | {episodes.episode_returns.mean():.4g} |" in text
    assert "**maximum budget**: 60 (the paper's, for its own data (Table 2))" in text
    assert "quality replay, num_steps 600, train_steps None, seed 1" in text


def test_card_lies_beside_the_dataset(datasets):
    path = describe(datasets["medium"])
    assert path.parent == get_dataset_path(datasets["medium"])
    mean_cost = load_episodes(datasets["medium"]).discounted_costs.mean()
    assert f"**maximum budget**: {mean_cost:.4g} (mean cost of its episodes)" in path.read_text()
    assert datasets["medium"] in minari.list_local_datasets()


def test_shares_are_counted_within_the_budget():
    rows = budget_shares(np.array([0.0, 12.0, 12.1, 60.0, 61.0]), 60.0)
    assert [row["share"] for row in rows] == [0.4, 0.6, 0.6, 0.6, 0.8]


def test_max_budget_is_measured_and_stored(datasets, tiny_agent):
    dataset_id = datasets["replay"]
    before = load_episodes(dataset_id)
    assert before.max_budget == before.metadata["paper_max_budget"] == 60.0
    with pytest.raises(ValueError, match="replay-v0' is 0: a budget should be positive"):
        measure_max_budget(dataset_id, cost_fn=lambda obs, *_: 0.0 * obs[:, 0])
    assert load_episodes(dataset_id).metadata == before.metadata, "nothing is stored"

    def torque(obs, actions, *_):
        return np.abs(actions[:, 0])  # so short a training may never reach what costs

    measured = measure_max_budget(dataset_id, cost_fn=torque)
    costs = load_episodes(dataset_id, cost_fn=torque).episode_costs
    assert measured["max_budget"] == pytest.approx(costs.mean())
    assert measured["paper_max_budget"] == 60.0
    after = load_episodes(dataset_id)
    assert after.max_budget == measured["max_budget"]
    assert after.metadata["paper_max_budget"] == 60.0
    assert after.fingerprint == before.fingerprint
    planned = measure_max_budget(dataset_id, tiny_agent, num_episodes=2)["max_budget"]
    assert load_episodes(dataset_id).max_budget == planned != measured["max_budget"]
    stored = json.loads((get_dataset_path(dataset_id) / "data" / "metadata.json").read_text())
    assert "unconstrained planning" in stored["max_budget_source"]
    assert minari.load_dataset(dataset_id).total_episodes == 3


def test_maximum_budgets_of_the_paper_belong_to_its_datasets():
    budgets = [paper_max_budget(config.env_id, config.quality) for config in MANIFEST]
    assert budgets == [60, 14, 150, 35, 384, 414, 731, 140, 130, 169, 160, 160, 234]
    assert paper_max_budget("safe/Pendulum-v0", "expert") is None
    assert paper_max_budget("safe/Hopper-v0", "replay") is None


def test_max_budget_of_discounted_costs():
    import dataclasses

    episodes = load_episodes("tests/quality/replay-v0")
    discounted = dataclasses.replace(
        episodes, cost_discount=0.9, costs=np.arange(len(episodes.costs), dtype=float)
    )
    for episode in range(3):
        expected = sum(0.9**t * (200 * episode + t) for t in range(200))
        assert discounted.discounted_costs[episode] == pytest.approx(expected)
