"""The layout of episodes and the sums over them, against loops over lists of lists."""

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safe_diffusion_agent.episodes import (
    Episodes,
    Task,
    discounted_steps,
    discounted_sum,
    discounted_sums,
    is_held_out,
    mean_and_std,
    next_remaining_budget,
    select_episodes,
    spent_before,
    values_to_go,
)

some_lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)
some_discounts = st.sampled_from([1.0, 0.99, 0.5])
some_seeds = st.integers(0, 1000)


def episodes_of(lengths, cost_discount=1.0, seed=0, **metadata) -> Episodes:
    rng, lengths = np.random.default_rng(seed), np.array(lengths)
    num = int(lengths.sum())
    return Episodes(
        observations=rng.normal(size=(num + len(lengths), 2)).astype(np.float32),
        actions=rng.uniform(-1, 1, size=(num, 1)).astype(np.float32),
        rewards=rng.normal(size=num),
        costs=rng.normal(size=num),
        lengths=lengths,
        terminated=rng.random(len(lengths)) < 0.5,
        action_low=np.array([-1.0], np.float32),
        action_high=np.array([1.0], np.float32),
        dataset_id="tests/made-up-v0",
        env_id=None,
        max_episode_steps=6,
        cost_discount=cost_discount,
        max_budget=1.0,
        metadata=metadata,
    )


def split(values, lengths) -> list[list[float]]:
    """Flat values as a list for each episode."""
    parts, rest = [], list(values)
    for length in lengths:
        parts.append(rest[:length])
        rest = rest[length:]
    assert not rest
    return parts


@given(some_lengths)
def test_the_layout_is_that_of_plain_loops(lengths):
    episodes = episodes_of(lengths)
    step = row = 0
    first_steps, last_steps, final_rows = [], [], []
    episode_of_step, positions, rows = [], [], []
    for episode, length in enumerate(lengths):
        first_steps.append(step)
        for position in range(length):
            episode_of_step.append(episode)
            positions.append(position)
            rows.append(row)
            step, row = step + 1, row + 1
        last_steps.append(step - 1)
        final_rows.append(row)
        row += 1  # the observation that the last step leads to
    assert episodes.first_steps.tolist() == first_steps
    assert episodes.last_steps.tolist() == last_steps
    assert episodes.final_rows.tolist() == final_rows
    assert episodes.episode_of_step.tolist() == episode_of_step
    assert episodes.positions.tolist() == positions
    assert episodes.rows.tolist() == rows
    assert sorted([*rows, *final_rows]) == list(range(len(episodes.observations)))


def test_the_layout_of_two_episodes_by_hand():
    """Three steps, whose observations are 0 to 3, and one step from 4 to 5."""
    episodes = episodes_of([3, 1])
    assert episodes.first_steps.tolist() == [0, 3] and episodes.last_steps.tolist() == [2, 3]
    assert episodes.rows.tolist() == [0, 1, 2, 4] and episodes.final_rows.tolist() == [3, 5]
    assert episodes.episode_of_step.tolist() == [0, 0, 0, 1]
    assert episodes.positions.tolist() == [0, 1, 2, 0]


@given(some_lengths, some_discounts, some_seeds)
def test_sums_of_episodes_are_those_of_plain_loops(lengths, discount, seed):
    episodes = episodes_of(lengths, discount, seed)
    rewards, costs = (split(values, lengths) for values in (episodes.rewards, episodes.costs))
    np.testing.assert_allclose(episodes.episode_returns, [sum(e) for e in rewards], atol=1e-9)
    np.testing.assert_allclose(episodes.episode_costs, [sum(e) for e in costs], atol=1e-9)
    discounted = [sum(discount**t * cost for t, cost in enumerate(e)) for e in costs]
    np.testing.assert_allclose(episodes.discounted_costs, discounted, atol=1e-9)
    np.testing.assert_allclose(
        discounted_sums(episodes.costs, episodes.lengths, discount), discounted, atol=1e-9
    )
    for values, expected in zip(costs, discounted, strict=True):
        assert discounted_sum(np.array(values), discount) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 6), st.integers(1, 4), some_discounts, some_seeds)
def test_a_discounted_sum_is_for_one_episode_or_for_each_of_several(num, width, discount, seed):
    values = np.random.default_rng(seed).normal(size=(num, width))
    expected = [sum(discount**t * values[t, i] for t in range(num)) for i in range(width)]
    np.testing.assert_allclose(discounted_sum(values, discount), expected, atol=1e-9)
    assert discounted_sum(values[:, 0], discount) == pytest.approx(expected[0], abs=1e-9)


@given(some_lengths, some_discounts, some_seeds)
def test_values_to_go_are_the_sums_of_the_definition(lengths, discount, seed):
    values = np.random.default_rng(seed).normal(size=sum(lengths))
    result = values_to_go(values, np.array(lengths), discount)
    start = 0
    for length in lengths:
        for t in range(length):
            expected = sum(discount**k * values[start + t + k] for k in range(length - t))
            assert result[start + t] == pytest.approx(expected, abs=1e-9)
        start += length


@given(some_lengths, some_discounts, some_seeds)
def test_what_was_spent_before_is_the_sum_of_the_definition(lengths, discount, seed):
    episodes = episodes_of(lengths, discount, seed)
    expected = []
    for costs in split(episodes.costs, lengths):
        for t in range(len(costs)):
            expected.append(sum(discount**k * costs[k] for k in range(t)))
    np.testing.assert_allclose(spent_before(episodes), expected, atol=1e-9)


def test_before_the_one_step_of_an_episode_nothing_was_spent():
    assert spent_before(episodes_of([1, 1, 1], 0.9)).tolist() == [0.0, 0.0, 0.0]


@given(some_lengths, some_discounts, some_seeds, st.floats(-50.0, 50.0))
def test_what_remains_of_a_budget_is_what_was_not_spent(lengths, discount, seed, budget):
    """z_t = (z_0 - what was spent before) / gamma_c^t, step by step."""
    episodes = episodes_of(lengths, discount, seed)
    spent = split(spent_before(episodes), lengths)
    for costs, before in zip(split(episodes.costs, lengths), spent, strict=True):
        remaining = budget
        for t, cost in enumerate(costs):
            assert remaining == pytest.approx((budget - before[t]) / discount**t, abs=1e-6)
            remaining = next_remaining_budget(remaining, cost, discount)


def test_the_next_budget_is_of_numbers_arrays_and_tensors():
    assert next_remaining_budget(3.0, 1.0, 0.5) == 4.0
    assert next_remaining_budget(np.array([3.0, math.inf]), 1.0, 0.5).tolist() == [4.0, math.inf]
    tensor = next_remaining_budget(torch.tensor([3.0, -1.0]), torch.tensor([1.0, -2.0]), 1.0)
    assert tensor.tolist() == [2.0, 1.0], "a negative cost gives something back"


@given(st.integers(0, 300), some_discounts)
def test_discounted_steps_are_the_geometric_series(num_steps, discount):
    expected = sum(discount**t for t in range(num_steps))
    assert discounted_steps(num_steps, discount) == pytest.approx(expected)
    for kind in (np.array, torch.tensor):
        assert float(discounted_steps(kind([float(num_steps)]), discount)[0]) == pytest.approx(
            expected, rel=1e-4
        )


def test_endless_steps_have_a_finite_value_where_it_is_discounted():
    assert discounted_steps(math.inf, 0.9) == pytest.approx(10.0)
    assert discounted_steps(math.inf, 1.0) == math.inf


@given(st.integers(1, 20), some_seeds)
def test_mean_and_deviation_are_those_of_plain_loops(num, seed):
    values = np.random.default_rng(seed).normal(3.0, 2.0, size=(num, 3)).astype(np.float32)
    mean, std = mean_and_std(values)
    assert mean.dtype == std.dtype == np.float64
    for column in range(3):
        numbers = [float(x) for x in values[:, column]]
        average = sum(numbers) / num
        deviation = math.sqrt(sum((x - average) ** 2 for x in numbers) / num)
        assert mean[column] == pytest.approx(average)
        constant = deviation <= 1e-6 * max(abs(average), 1.0)
        assert std[column] == pytest.approx(1.0 if constant else deviation)


def test_a_column_that_varies_by_rounding_alone_is_constant():
    noise = np.array([-1.0, 1.0])
    values = np.stack([1e6 + 0.5 * noise, 1e6 + 2 * noise, 1e-7 * noise, 1e-5 * noise], axis=1)
    assert mean_and_std(values)[1].tolist() == pytest.approx([1.0, 2.0, 1.0, 1e-5])
    assert mean_and_std(np.full((1, 2), 5.0))[1].tolist() == [1.0, 1.0], "one row is constant"


def test_every_few_episodes_are_held_out():
    assert np.flatnonzero(is_held_out(12, 0.25)).tolist() == [3, 7, 11]
    assert not is_held_out(12, 0.0).any() and is_held_out(12, 1.0).sum() == 6


@given(some_lengths, st.data())
def test_episodes_are_selected_whole(lengths, data):
    chosen = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    episodes = episodes_of(lengths)
    part = select_episodes(episodes, np.array(chosen, np.bool_))
    kept = [episode for episode, wanted in enumerate(chosen) if wanted]
    assert part.lengths.tolist() == [lengths[episode] for episode in kept]
    assert part.terminated.tolist() == [episodes.terminated[episode] for episode in kept]
    for name, num_rows in (("observations", [k + 1 for k in lengths]), ("actions", lengths),
                           ("rewards", lengths), ("costs", lengths)):  # fmt: skip
        whole = split(getattr(episodes, name).tolist(), num_rows)
        assert getattr(part, name).tolist() == [x for episode in kept for x in whole[episode]]


def test_episodes_of_a_dataset_are_selected_whole(tiny_episodes):
    chosen = is_held_out(12, 0.25)
    part = select_episodes(tiny_episodes, chosen)
    assert part.lengths.tolist() == [200] * 3 and len(part.observations) == 3 * 201
    np.testing.assert_allclose(part.episode_costs, tiny_episodes.episode_costs[chosen])
    rest = select_episodes(tiny_episodes, ~chosen)
    np.testing.assert_array_equal(rest.actions[:200], tiny_episodes.actions[:200])
    np.testing.assert_array_equal(rest.observations[603:804], tiny_episodes.observations[804:1005])


def test_the_task_of_a_dataset():
    episodes = episodes_of([2, 1], 0.9)
    task = Task.of(episodes)
    assert (task.obs_dim, task.act_dim, task.cost_discount) == (2, 1, 0.9)
    assert (task.action_low, task.action_high) == ((-1.0,), (1.0,))
    assert task.dataset_fingerprint == episodes.fingerprint
    document = vars(task) | {"action_low": [-1.0], "action_high": [1.0]}
    assert Task.from_json(document) == task
    older = {k: v for k, v in document.items() if k != "costs_may_be_negative"}
    assert not Task.from_json(older).costs_may_be_negative


@pytest.mark.parametrize("lowest", [0.0, -0.1])
def test_costs_may_be_negative_where_some_are_or_where_the_dataset_says_so(lowest):
    costs = np.array([1.0, lowest, 0.0])
    for stated in ({}, {"costs_may_be_negative": False}, {"costs_may_be_negative": True}):
        episodes = replace(episodes_of([2, 1], **stated), costs=costs)
        expected = stated.get("costs_may_be_negative", lowest < 0)
        assert Task.of(episodes).costs_may_be_negative is expected


def test_the_task_of_an_environment():
    env = gym.make("safe/Pendulum-v0")
    task = Task.of_env(env, cost_discount=0.9, max_budget=7.0)
    assert (task.env_id, task.obs_dim, task.act_dim) == ("safe/Pendulum-v0", 3, 1)
    assert (task.action_low, task.action_high) == ((-2.0,), (2.0,))
    assert (task.max_episode_steps, task.cost_discount, task.max_budget) == (200, 0.9, 7.0)
    assert task.dataset_id is None and task.dataset_fingerprint is None
    unnamed = Task.of_env(env.unwrapped.__class__())
    assert unnamed.env_id is None and unnamed.max_episode_steps is None
    assert (unnamed.cost_discount, unnamed.costs_may_be_negative) == (1.0, False)
    assert Task.of_env(env, costs_may_be_negative=True).costs_may_be_negative
    with pytest.raises(ValueError, match="The action space should be a one-dimensional Box"):
        Task.of_env(gym.make("CartPole-v1"))
