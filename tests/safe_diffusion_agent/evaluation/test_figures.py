"""Pictures, by what matplotlib says of them."""

import pytest

from safe_diffusion_agent.evaluation import figures
from safe_diffusion_agent.evaluation.protocol import EpisodeResult


def episode(cost) -> EpisodeResult:
    return EpisodeResult(
        ratio=1.0, budget=10.0, episode=0, episode_return=1.0, cost=cost, undiscounted_cost=cost,
        normalized_cost=cost / 10.0, over_budget=cost > 10.0, num_steps=5,
    )  # fmt: skip


@pytest.mark.parametrize("random_ratios", [False, True])
@pytest.mark.parametrize("costs", [(-5.0, -4.0), (2.0, 20.0)])
def test_every_cost_is_in_the_picture(costs, random_ratios, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda figure, _: drawn.append(figure))
    episodes = {"trebi": [episode(cost) for cost in costs]}
    panel = figures.ComparisonPanel(name="task", episodes=episodes, lines={})
    figures.draw_comparison([panel], tmp_path / "picture.png", random_ratios=random_ratios)
    low, high = drawn[0].axes[0].get_ylim()
    assert low < min(costs) / 10.0 and max(costs) / 10.0 < high and 1.0 < high
    assert (low == 0.0) == (min(costs) >= 0.0)
