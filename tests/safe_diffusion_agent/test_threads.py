"""Few states are planned for on one thread, and nothing else changes."""

import numpy as np
import pytest
import torch

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.agent import FEW_STATES
from safe_diffusion_agent.compute import one_thread


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


@pytest.mark.parametrize("num_states, expected", [(1, 1), (FEW_STATES, 1), (FEW_STATES + 1, 2)])
def test_few_states_are_planned_for_on_one_thread(two_threads, monkeypatch, num_states, expected):
    agent = TrebiAgent.load("pendulum", num_candidates=0)
    seen, plan = [], agent.planner._execute

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return plan(*arguments)

    monkeypatch.setattr(agent.planner, "_execute", watched)
    agent.act(np.zeros((num_states, 3)), 30.0, 200)
    assert seen == [expected] and torch.get_num_threads() == 2
