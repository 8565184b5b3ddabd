"""Few states are planned for on one thread, and nothing else changes."""

import numpy as np
import pytest
import torch

from safe_diffusion_agent import Agent, TrebiAgent
from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.methods.table import METHODS


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_is_for_what_is_in_it(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with one_thread(when=False):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "num_states, expected", [(1, 1), (Agent.few_states, 1), (Agent.few_states + 1, 2)]
)
def test_few_states_are_planned_for_on_one_thread(two_threads, monkeypatch, num_states, expected):
    agent = TrebiAgent.load("pendulum", num_candidates=0)
    seen, plan = [], agent.planner._execute

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return plan(*arguments)

    monkeypatch.setattr(agent.planner, "_execute", watched)
    agent.act(np.zeros((num_states, 3)), 30.0, 200)
    assert seen == [expected] and torch.get_num_threads() == 2


def test_threads_are_given_back_where_acting_fails(two_threads, monkeypatch):
    agent = TrebiAgent.load("pendulum", num_candidates=0)

    def failing(*_):
        assert torch.get_num_threads() == 1
        raise KeyError

    monkeypatch.setattr(agent.planner, "_execute", failing)
    for method in (agent.act, agent.plan):
        with pytest.raises(KeyError):
            method(np.zeros(3), 30.0, 200)
        assert torch.get_num_threads() == 2


def test_what_few_states_are_depends_on_the_networks(two_threads, tiny_agent, tiny_episodes):
    """U-Nets are large: they use all threads for any number of states."""
    config = METHODS["trebi"].config(
        "paper", horizon=8, base_width=16, width_mults=(1, 2), num_steps=1, batch_size=2,
        diffusion_steps=2, num_candidates=2,
    )  # fmt: skip
    agent, seen = METHODS["trebi"].fit(tiny_episodes, config, device="cpu")[0], []
    agent.networks.denoiser.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    agent.act(np.zeros(3), 30.0, 200)
    assert set(seen) == {2} and (agent.few_states, tiny_agent.few_states) == (0, Agent.few_states)


def test_few_states_of_a_baseline_are_acted_on_in_one_thread(two_threads, tiny_episodes):
    config = METHODS["bc"].config("quick", num_steps=1, batch_size=2, width=8)
    agent, seen = METHODS["bc"].fit(tiny_episodes, config, device="cpu")[0], []
    agent.networks.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    for num in (1, Agent.few_states, Agent.few_states + 1):
        agent.act(np.zeros((num, 3)), 30.0, 200)
    assert seen == [1, 1, 2] and torch.get_num_threads() == 2
