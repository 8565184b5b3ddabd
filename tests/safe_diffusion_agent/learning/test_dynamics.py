import pytest
import torch
from torch import nn

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition, imagine


class Counter(DynamicsEnsemble):
    """A world that counts: o' = o + a, reward 2, cost |a|, survival 0.9."""

    def __init__(self):
        super().__init__(1, 1, 4, 1)

    def step(self, obs, actions, members=None):
        ones = torch.ones(len(obs))
        return Transition(obs + actions, 2.0 * ones, actions[:, 0].abs(), 0.9 * ones)


def test_rollout_sums_what_survives_and_is_discounted():
    rollout = imagine(
        Counter(), torch.zeros(2, 1), lambda obs, t: torch.full((2, 1), 3.0), 4,
        discount=0.5, cost_discount=0.8,
    )  # fmt: skip
    for steps in range(1, 5):  # geometric series
        returns, costs, survival, obs = rollout.after(torch.full((2,), float(steps)))
        assert obs.tolist() == [[3.0 * steps]] * 2
        assert float(survival[0]) == pytest.approx(0.9**steps)
        assert float(returns[0]) == pytest.approx(2 * (1 - 0.45**steps) / 0.55)
        assert float(costs[0]) == pytest.approx(3 * (1 - 0.72**steps) / 0.28, rel=1e-5)


def test_every_member_is_a_network_of_its_own():
    ensemble = DynamicsEnsemble(2, 1, 8, 3)
    obs, actions = torch.randn(5, 2), torch.randn(5, 1)
    raw = ensemble(obs, actions)
    for member in range(3):
        layers = []
        for layer in ensemble.network:
            if isinstance(layer, nn.SiLU):
                layers.append(nn.SiLU())
                continue
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data = layer.weight.data[member].T
            linear.bias.data = layer.bias.data[member, 0]
            layers.append(linear)
        alone = nn.Sequential(*layers)(torch.cat([obs, actions], dim=1))
        torch.testing.assert_close(raw[member], alone)
    chosen = ensemble.step(obs, actions, members=torch.tensor([0, 1, 2, 0, 1])).observation
    torch.testing.assert_close(chosen[1], obs[1] + raw[1, 1, :2])
    torch.testing.assert_close(
        ensemble.step(obs, actions).observation, obs + raw.mean(dim=0)[:, :2]
    )


def test_costs_and_observations_stay_in_the_box():
    ensemble = DynamicsEnsemble(1, 1, 8, 2)
    ensemble.target_shift.fill_(-5.0)
    ensemble.obs_low.fill_(-0.5)
    step = ensemble.step(torch.zeros(3, 1), torch.zeros(3, 1))
    assert (step.cost == 0).all() and (step.observation == -0.5).all() and (step.reward < 0).all()
    assert (step.survival == 1).all(), "no episode of the data terminated"
    ensemble.terminates.fill_(1.0)
    assert (ensemble.step(torch.zeros(3, 1), torch.zeros(3, 1)).survival < 1).all()
    ensemble.cost_low.fill_(-2.0)
    assert (ensemble.step(torch.zeros(3, 1), torch.zeros(3, 1)).cost == -2.0).all()


@pytest.mark.parametrize("missing", [{"event_cost", "cost_low"}, {"cost_low"}])
def test_models_from_before_events_and_negative_costs_are_read(missing):
    old = DynamicsEnsemble(2, 1, 8, 3)
    tensors = {name: t for name, t in old.state_dict().items() if name not in missing}
    new = DynamicsEnsemble(2, 1, 8, 3)
    new.load_state_dict(tensors)
    assert new.event_cost == 0 and new.cost_low == 0
    del tensors["trusted_steps"]
    with pytest.raises(RuntimeError, match="trusted_steps"):
        new.load_state_dict(tensors)
