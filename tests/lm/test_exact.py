"""Training a language model on an enumerated tree: its gradients, and where it ends."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from klsim.distributions import log_normalize
from klsim.learning import PromptTree, TreeProblem
from klsim.learning.objective_checks import closed_forms, sequence_kl
from klsim.lm.exact import draw, exact_gradient, exact_step, fit_tree, policy_table, sampled_step, tree_batch
from klsim.lm.table import tabulate, tree_log_probs
from klsim.objectives import g_opd, kl_in_reward, opd, rloo, sequence_sum
from klsim.problems import TokenTree
from klsim.problems.token_tree import sequence_log_probs

VOCAB, HORIZON = 3, 3
LETTERS = range(VOCAB)
PROMPT = [VOCAB]  # not a letter: rotary positions cannot tell "0 0" from "0 0 0"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gpt2(seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=5, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    return GPT2LMHeadModel(config).double().eval()


def random_levels(rng, scale=1.0):
    return tuple(log_normalize(scale * rng.standard_normal((VOCAB**t, VOCAB))) for t in range(HORIZON))


def world(model, prompts=(PROMPT,), eos=None, prefix=(), **laws):
    rng = np.random.default_rng(0)
    made = []
    for ids in prompts:
        reward = rng.standard_normal(VOCAB**HORIZON)
        pi = tabulate(model, ids, HORIZON, LETTERS).levels
        tree = TokenTree(VOCAB, HORIZON, reward, eos)
        made.append(PromptTree(tree, pi, random_levels(rng), random_levels(rng), prefix=prefix, **laws))
    return TreeProblem(made)


@pytest.mark.parametrize(("eos", "prefix"), [(None, ()), (0, ()), (0, (2,)), (1, ())])
def test_the_table_has_the_rows_of_the_problem(eos, prefix):
    model, prompts = gpt2(), ([3], [4, 1])
    problem = world(model, prompts, eos, prefix)
    table = policy_table(model, prompts, problem, LETTERS)
    np.testing.assert_allclose(table.detach().numpy(), problem.tables["policy"], atol=1e-12)


def parameter_gradient(model, value):
    return torch.cat([g.ravel() for g in torch.autograd.grad(value, list(model.parameters()))])


def test_the_exact_step_is_the_gradient_of_the_divergence_of_sequences():
    model = gpt2()
    problem = world(model)
    step = exact_step({"reverse_kl(teacher)": 1.0, "reward": -0.5})
    found = parameter_gradient(model, step(policy_table(model, [PROMPT], problem, LETTERS), problem))
    log_p = sequence_log_probs(tree_log_probs(model, PROMPT, HORIZON, LETTERS))
    log_t = torch.as_tensor(problem.log_prob("teacher"))
    value = (log_p.exp() * (log_p - log_t - 0.5 * torch.as_tensor(problem.reward))).sum()
    torch.testing.assert_close(found, parameter_gradient(model, value), rtol=1e-9, atol=1e-11)


def test_discount_0_is_another_gradient():
    model = gpt2()
    problem = world(model)
    whole, frozen = (
        parameter_gradient(model, exact_step({name: 1.0})(policy_table(model, [PROMPT], problem, LETTERS), problem))
        for name in ("reverse_kl(teacher)", "reverse_kl(teacher, frozen)")
    )
    assert torch.linalg.norm(whole - frozen) > 0.1 * torch.linalg.norm(whole)


OPEN = (math.inf, math.inf)
LOSSES = [
    (partial(g_opd, lam=1.5, clip=OPEN, aggregate=sequence_sum),
     {"reverse_kl(teacher, frozen)": 1.5, "reverse_kl(frozen)": -0.5}, 1),
    (partial(g_opd, lam=1.5, discount=1, clip=OPEN, aggregate=sequence_sum),
     {"reverse_kl(teacher)": 1.5, "reverse_kl": -0.5}, 1),
    (lambda batch: rloo(kl_in_reward(batch, beta=0.3)), {"reward": -1.0, "reverse_kl": 0.3}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "population", "group_size"), LOSSES)
def test_a_loss_and_its_functionals_train_the_model_alike(loss, population, group_size):
    problem = world(gpt2())
    found = exact_gradient(loss, problem, group_size=group_size)
    np.testing.assert_allclose(found, exact_gradient(population, problem), atol=1e-12)


def test_a_batch_of_the_tree_holds_the_model_s_own_token_log_probs():
    model, prompts = gpt2(), ([3], [4, 1])
    problem = world(model, prompts, eos=0)
    rows = draw(problem, 6, 0)
    batch = tree_batch(policy_table(model, prompts, problem, LETTERS), problem, rows)
    assert batch.group.tolist() == [0] * 6 + [1] * 6
    for i, row in enumerate(rows):
        prompt, length = prompts[problem.prompt[row]], problem.length[row]
        word = problem.tokens[row, :length].tolist()
        logits = model(input_ids=torch.tensor([[*prompt, *word]])).logits[0, len(prompt) - 1 : -1, :VOCAB]
        own = torch.log_softmax(logits, dim=-1)[torch.arange(length), word]
        torch.testing.assert_close(batch.log_probs[i, :length], own, rtol=0, atol=1e-12)
    assert batch.log_probs.requires_grad
    assert not batch.old_log_probs.requires_grad


def test_draws_follow_their_law():
    problem = world(gpt2())
    counts = np.bincount(draw(problem, 20_000, 1, law="ref"), minlength=VOCAB**HORIZON)
    p = np.exp(problem.log_prob("ref"))
    # five standard deviations of each of 27 counts
    assert np.all(np.abs(counts - 20_000 * p) < 5 * np.sqrt(20_000 * p * (1 - p)) + 1)


def qwen2(seed, hidden=32, scale=0.25):
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB + 1, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16, initializer_range=scale,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).double()


@pytest.fixture(scope="module")
def distillation():
    ref, teacher, student = (
        tabulate(model, PROMPT, HORIZON, LETTERS).levels for model in (qwen2(1), qwen2(8), qwen2(0, scale=0.05))
    )
    return TreeProblem([PromptTree(TokenTree(VOCAB, HORIZON, np.zeros(VOCAB**HORIZON)), student, ref, teacher)])


@pytest.mark.parametrize("discount", [0, 1])
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "sampled"])
def test_g_opd_lands_on_its_own_optimum_and_not_on_the_other(distillation, discount, exact):
    forms = closed_forms(distillation, lam=1.5)
    own, other = (
        forms[f"{name} mixture"] for name in (("token", "sequence") if discount == 0 else ("sequence", "token"))
    )
    apart = sequence_kl(distillation.with_policy(own), other)
    loss, population, _ = LOSSES[discount]
    step = exact_step(population) if exact else sampled_step(loss, 128, 0)
    fit = fit_tree(
        qwen2(0, scale=0.05), [PROMPT], distillation, step, steps=250, lr=0.005, vocab=LETTERS, record=[0, 100]
    )
    assert fit.steps == (0, 100, 250)
    assert sequence_kl(fit.problems[0], own) > 0.3
    assert sequence_kl(fit.final, own) < (1e-3 if exact else 0.03)
    assert apart > 0.1
    assert sequence_kl(fit.final, other) > 0.5 * apart


def test_steps_add_up():
    problem, results = world(gpt2()), []
    for steps in ([exact_step({"reward": -1.0, "reverse_kl": 0.3})],
                  [exact_step({"reward": -1.0}), exact_step({"reverse_kl": 0.3})]):  # fmt: skip
        results.append(fit_tree(gpt2(), [PROMPT], problem, *steps, steps=5, lr=0.01, vocab=LETTERS).final)
    np.testing.assert_allclose(results[0].tables["policy"], results[1].tables["policy"], atol=1e-9)


def test_errors():
    model = gpt2()
    problem = world(model)
    with pytest.raises(ValueError, match="prompt_ids = 2: needs one list for each of the 1 prompts"):
        policy_table(model, [[3], [4]], problem, LETTERS)
    with pytest.raises(ValueError, match="vocab = 5: must have 3 tokens"):
        policy_table(model, [[3]], problem)
    with pytest.raises(ValueError, match="group_size = 8: too many groups"):
        exact_gradient(opd, problem, group_size=8)
    with pytest.raises(ValueError, match="law = 'external': must be one of"):
        draw(problem, 2, 0, law="external")
    with pytest.raises(ValueError, match="steps_of: needs at least one"):
        fit_tree(model, [[3]], problem, steps=1, lr=0.1, vocab=LETTERS)
    with pytest.raises(ValueError, match="steps_of: their sum is inf at step 0"):
        fit_tree(model, [[3]], problem, lambda table, now: table.sum() * math.inf * -1, steps=1, lr=0.1, vocab=LETTERS)
