import torch
from frontier_cases import Shop, sampler_of

from safe_diffusion_agent.methods.trebi.frontier import branches
from safe_diffusion_agent.methods.trebi.frontier.branches import RolloutSource
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic


def test_random_plans_stay_in_range():
    critic = FrontierCritic(1, 2, 8, 20, 1.0, 1.0)
    critic.action_low.copy_(torch.tensor([-1.0, 0.0]))
    critic.action_high.copy_(torch.tensor([1.0, 5.0]))
    generator = torch.Generator().manual_seed(0)
    plans = RolloutSource(sampler_of(Shop(), critic)).random_plans(500, 12, generator)
    assert plans.shape == (500, 12, 2)
    assert (plans >= critic.action_low).all() and (plans <= critic.action_high).all()
    kept = (plans[:, 1:] == plans[:, :-1]).all(dim=2).float().mean()
    assert 0.5 < float(kept) < 0.85, "actions are kept for some steps"


def test_a_branch_leads_to_what_its_actions_add_up_to():
    """In the shop: returns and costs after k steps are the sums of the first k actions."""
    critic = FrontierCritic(1, 1, 8, 20, 1.0, 0.5)
    critic.action_high.fill_(1.0)
    source = RolloutSource(sampler_of(Shop(), critic, lambda x, i: torch.rand_like(x)))
    with torch.no_grad():
        made = source.branch(torch.zeros(7, 1), 3, torch.Generator().manual_seed(0))
    num = 3 + branches.NUM_RANDOM + branches.NUM_BEHAVIORS
    assert made.num_plans == num and made.obs.shape == (7, 1)
    assert made.rollout.actions.shape == (7 * num, 4, 1), "as many steps as are trusted"
    states = torch.tensor([5, 0])
    num_steps = torch.arange(2 * num).view(2, num) % 4 + 1
    target = made.get(states, num_steps)
    for row, steps in enumerate(num_steps.flatten().tolist()):
        of_plan = int(states[row // num]) * num + row % num
        actions = made.rollout.actions[of_plan, :, 0]
        torch.testing.assert_close(target.actions[row], actions[:1])
        torch.testing.assert_close(target.returns[row], actions[:steps].sum())
        weights = 0.5 ** torch.arange(steps)
        torch.testing.assert_close(target.costs[row], (weights * actions[:steps]).sum())
        assert target.num_steps[row] == steps and target.survival[row] == 1
