"""Errors name what was meant, and warnings point to the line that is to blame."""

import sys
import warnings

import numpy as np
import pytest

from safe_diffusion_agent import TrebiAgent, errors
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.table import METHODS

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)


def here() -> int:
    """The line that calls this."""
    return sys._getframe(1).f_lineno


@pytest.fixture(scope="module")
def baseline(tiny_episodes):
    """One that looks at the time."""
    config = METHODS["caps"].config("quick", num_steps=2, batch_size=4, width=8)
    return METHODS["caps"].fit(tiny_episodes, config, device="cpu")[0]


def assert_blames(caught, line):
    assert caught, "there is a warning"
    for warning in caught:
        assert "give it the remaining_steps" in str(warning.message)
        assert (warning.filename, warning.lineno) == (__file__, line)


@pytest.mark.parametrize("name", ["act", "plan", "feasibility"])
@pytest.mark.parametrize("judge", ["values", "frontier"])
def test_warnings_of_trebi_point_to_the_line_that_calls_it(tiny_agent, name, judge):
    agent = tiny_agent if judge == "values" else TrebiAgent.load("pendulum", device="cpu")
    method = getattr(agent, name)
    with pytest.warns(UserWarning) as caught:
        line = here() + 1
        method(HANGING, 10.0)
    assert_blames(caught, line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(HANGING, 10.0, 100)


def test_warnings_of_a_baseline_point_to_the_line_that_calls_it(baseline):
    assert baseline.looks_at_time
    with pytest.warns(UserWarning) as caught:
        line = here() + 1
        baseline.act(HANGING, 10.0)
    assert_blames(caught, line)


def test_warnings_of_a_loaded_agent_point_to_the_line_that_loads_it(tmp_path):
    agent = TrebiAgent.load("pendulum", device="cpu")
    agent.about["branches"] = False
    agent.save(tmp_path)
    with pytest.warns(UserWarning, match="learned from the recorded episodes alone") as caught:
        line = here() + 1
        TrebiAgent.load(tmp_path, num_candidates=0, device="cpu")
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, line)]


def test_a_neighbor_of_a_similar_name_is_outside_of_the_package():
    """Code in a folder `safe_diffusion_agent_mine` beside the package is not of the package."""
    neighbor = errors.PACKAGE.rstrip("/\\") + "_mine/script.py"
    program = compile("\n\nerrors.warn('look')", neighbor, "exec")
    with pytest.warns(UserWarning, match="look") as caught:
        exec(program, {"errors": errors})
    assert [(w.filename, w.lineno) for w in caught] == [(neighbor, 3)]


def test_unknown_names_come_with_the_nearest_and_all_known():
    error = UnknownNameError("preset", "papr", ["quick", "paper"])
    expected = "There is no preset 'papr'. Did you mean 'paper'? Known: paper, quick."
    assert str(error) == expected and isinstance(error, ValueError)
    assert str(UnknownNameError("preset", "x", [])) == "There is no preset 'x'. Known: none."
