"""Losses to try `klsim audit` on.

    klsim audit examples/audit/losses.py:reinforce --expect 'reward - beta*forward_kl(frozen)'
    klsim audit examples/audit/losses.py:forgotten_mask --expect 'reward - beta*forward_kl(frozen)'
    klsim audit examples/audit/losses.py:token_mean --expect 'token_mean(reward)'
    klsim audit examples/audit/losses.py:reinforce --expect 'reward - beta*size' \\
        --term size=examples/audit/losses.py:sampled_forward_kl --must-act beta

The first, the third and the last are met; the second depends on masked positions.
"""


def leave_one_out(batch):
    """Advantages of every response within its group."""
    rewards = batch.total_rewards()
    same = (batch.group[:, None] == batch.group[None]).to(rewards.dtype)
    return rewards - (same @ rewards - rewards) / (same.sum(1) - 1)


def k3(batch):
    """An estimate of KL(pi‖ref) for every token."""
    gap = batch.ref_log_probs - batch.log_probs
    return gap.expm1() - gap


def reinforce(batch, beta=0.1):
    """REINFORCE with a leave-one-out baseline and k3 in the loss."""
    policy = -(leave_one_out(batch) * (batch.log_probs * batch.weights).sum(1)).mean()
    return policy + beta * (k3(batch) * batch.weights).sum(1).mean()


def forgotten_mask(batch, beta=0.1):
    """The same; the penalty counts padding too."""
    policy = -(leave_one_out(batch) * (batch.log_probs * batch.weights).sum(1)).mean()
    return policy + beta * k3(batch).sum(1).mean()


def token_mean(batch):
    """A mean over all tokens of the batch."""
    each = leave_one_out(batch)[:, None] * batch.log_probs * batch.weights
    return -each.sum() / batch.weights.sum()


def sampled_forward_kl(problem, table):
    """An own functional: of a `klsim.learning.TreeProblem` and the policy's log-probabilities, a torch scalar."""
    import torch

    visits = torch.as_tensor(problem.visits("behaviour") * problem.share[problem.node_prompt])
    ref = torch.as_tensor(problem.tables["ref"])
    return (visits * (ref.exp() * (ref - table)).sum(-1)).sum()
