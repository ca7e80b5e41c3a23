"""The trainer: the batch that the objective sees is the models' own, and nothing that is not a number becomes a step."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from klsim import objectives
from klsim.lm.models import character_tokenizer, tiny_model
from klsim.lm.objectives import named
from klsim.lm.tasks import make, reward_of
from klsim.lm.trainer import ObjectiveTrainer, checked_reward, quiet

TASKS = {
    "add": make("add", {"kind": "modular", "terms": 2, "chain": False}),
    "mul": make("mul", {"kind": "modular", "terms": 2, "chain": False, "operations": "*"}),
}
TOKENIZER = character_tokenizer(TASKS["add"].alphabet)


def model(seed: int = 0):
    return tiny_model(TOKENIZER, hidden=16, layers=1, heads=2, seed=seed)


def rows():
    mixed = zip(*([row | {"domain": name} for row in task.examples(8, 3)] for name, task in TASKS.items()))
    return Dataset.from_list([row for pair in mixed for row in pair])


def trainer(tmp_path, objective, *, start=None, **options):
    given = {
        "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [],
        "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 3, "max_steps": 2,
        "save_strategy": "no", "learning_rate": 1e-2, "remove_unused_columns": False, "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    keys = ("ref_model", "teachers", "reward_funcs")
    others = {key: options.pop(key) for key in keys if key in options}
    with quiet():
        return ObjectiveTrainer(
            model=start or model(), objective=objective, args=GRPOConfig(**given | options), train_dataset=rows(),
            processing_class=TOKENIZER, **{"reward_funcs": [reward_of(TASKS)]} | others,
        )  # fmt: skip


def run(made):
    with quiet():
        made.train()
    return made


class Recorder:
    """An objective that keeps its batches and the gradient-free policy of the moment."""

    def __init__(self, loss, made=None):
        self.loss, self.batches, self.weights = loss, [], []

    def __call__(self, batch):
        if hasattr(self, "model") and batch.log_probs.requires_grad:
            self.batches.append(batch)
            self.weights.append(copy.deepcopy(self.model.state_dict()))
        return self.loss(batch)


def laws_by_hand(law, ids, attention, width, temperature):
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = law(input_ids=ids, attention_mask=attention, position_ids=positions).logits[:, :-1]
    logp = torch.log_softmax(logits.double() / temperature, dim=-1)
    return logp.gather(-1, ids[:, 1:, None])[..., 0][:, -width:]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_batch_is_what_the_models_say(tmp_path, accumulation):
    recorder = Recorder(lambda b: objectives.g_opd(b, lam=1.25))
    start, ref = model(0), model(1)
    teachers = {"add": model(2), "mul": model(3)}
    made = trainer(
        tmp_path, recorder, start=start, ref_model=ref, teachers=teachers, temperature=0.7,
        gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    recorder.model = start
    seen = []
    original = made._laws

    def laws(law, inputs):
        seen.append(inputs)
        return original(law, inputs)

    made._laws = laws
    run(made)
    assert len(recorder.batches) == 2 * accumulation
    names = ("add", "mul")
    for batch, weights, inputs in zip(recorder.batches, recorder.weights, seen):
        assert [int((batch.group == g).sum()) for g in batch.group.unique()] == [4, 4]  # whole groups
        policy = model(0)
        policy.load_state_dict(weights)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        width = inputs["completion_ids"].shape[1]
        mask = batch.mask
        domain = ["*" in text for text in TOKENIZER.batch_decode(inputs["prompt_ids"])]
        assert inputs["domain"].tolist() == [int(d) for d in domain]
        wanted = {"log_probs": policy, "ref_log_probs": ref}
        for name, law in wanted.items():
            by_hand = laws_by_hand(law, ids, attention, width, 0.7)
            torch.testing.assert_close(getattr(batch, name).detach().double()[mask], by_hand[mask], atol=2e-5, rtol=0)
        for i, name in enumerate(names):
            rows_of = (inputs["domain"] == i)[:, None] & mask
            by_hand = laws_by_hand(teachers[name], ids, attention, width, 0.7)
            got = batch.teacher_log_probs.double()
            torch.testing.assert_close(got[rows_of], by_hand[rows_of], atol=2e-5, rtol=0)


def test_rewards_and_whole_vocabulary(tmp_path):
    recorder = Recorder(lambda b: objectives.rover(b))
    start = model(0)
    made = trainer(tmp_path, recorder, start=start, max_steps=1)
    recorder.model = start
    assert made.needed == {"rewards", "vocab_log_probs"}
    run(made)
    (batch,) = recorder.batches
    chosen = batch.vocab_log_probs.gather(-1, batch.tokens[..., None])[..., 0]
    torch.testing.assert_close(chosen[batch.mask], batch.log_probs[batch.mask], atol=2e-5, rtol=0)
    assert set(batch.rewards.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "given",
    [
        {"name": "g_opd_full", "lam": 1.5},
        {"name": "g_opd_full", "lam": 1.0, "aggregate": "sequence_mean"},
        {"name": "gkd", "mix": 0.3, "aggregate": "sequence_sum"},
        {"name": "divergence", "generator": "js", "against": "teacher"},
        {"name": "divergence", "generator": "kl", "aggregate": 5},
    ],
)
def test_chunked_is_the_same_objective(tmp_path, given):
    """Loss and gradients of one batch, in chunks and from all logits."""
    teachers = {"add": model(2), "mul": model(3)}
    made = trainer(tmp_path, named(**given), start=model(0), ref_model=model(1), teachers=teachers, temperature=0.8)
    assert made.chunked is not None
    seen = []
    original = made._compute_loss
    made._compute_loss = lambda law, inputs: seen.append(inputs) or original(law, inputs)
    run(made)
    law = made.accelerator.unwrap_model(made.model)
    losses, gradients = [], []
    for chunks in (made.chunked, None):
        made.chunked = chunks
        law.zero_grad()
        loss = original(law, seen[0])
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.clone() for name, p in law.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=2e-5, abs=1e-6)
    for name, value in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], value, rtol=2e-4, atol=2e-6, msg=name)


def test_a_step_follows_the_objective(tmp_path):
    """One SGD step moves the weights by -lr times the gradient of the objective at the recorded batch."""
    recorder = Recorder(named("reinforce"))
    start = model(0)
    made = trainer(
        tmp_path, recorder, start=start, max_steps=1, optim="sgd", learning_rate=0.5, max_grad_norm=0.0,
        lr_scheduler_type="constant", reward_funcs=[lambda prompts, completions, **_: [len(c) for c in completions]],
    )  # fmt: skip
    recorder.model = start
    seen = []
    original = made._laws
    made._laws = lambda law, inputs: seen.append(inputs) or original(law, inputs)
    run(made)
    (batch,) = recorder.batches
    inputs = seen[0]
    fresh = model(0)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    logits = fresh(input_ids=ids, attention_mask=attention, position_ids=positions).logits[:, :-1]
    logp = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0][:, -batch.mask.shape[1] :]
    loss = -((logp * batch.mask).sum(1) * batch.rewards).mean()  # REINFORCE by hand
    loss.backward()
    for (name, after), (_, before) in zip(start.named_parameters(), fresh.named_parameters()):
        torch.testing.assert_close(after, before - 0.5 * before.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None])
def test_rewards_must_be_numbers(tmp_path, value):
    def reward(prompts, completions, **_):
        return [0.0, value] + [0.0] * (len(completions) - 2)

    made = trainer(tmp_path, named("grpo"), reward_funcs=[reward])
    with pytest.raises(ValueError, match=r"reward 'reward'\[1\] = .*must be a finite number"):
        run(made)


def test_checked_reward_counts():
    with pytest.raises(ValueError, match="gave 1 values for 2 completions"):
        checked_reward(lambda prompts, completions, **_: [1.0])(["a", "b"], ["c", "d"])


def test_nan_while_sampling(tmp_path):
    start = model(0)
    with torch.no_grad():
        start.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1: the model's next-token probabilities are NaN"):
        run(trainer(tmp_path, named("grpo"), start=start))


def test_nan_of_a_teacher(tmp_path):
    teacher = model(1)
    with torch.no_grad():
        teacher.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"teacher_log_probs\[0, 0\] = nan"):
        run(trainer(tmp_path, named("opd"), teachers={"add": teacher, "mul": teacher}))


def test_a_gradient_that_is_not_finite_takes_no_step(tmp_path):
    start = model(0)
    before = copy.deepcopy(start.state_dict())

    def objective(batch):
        return (batch.log_probs * float("inf")).sum(), {}

    with pytest.raises(ValueError, match=r"step 1: the gradient of \S+ is not finite; no step was taken"):
        run(trainer(tmp_path, objective, start=start))
    for name, value in start.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (named("g_opd"), {"teachers": {"add": None}}, "ref_model: this objective needs a reference"),
        (named("opd"), {}, "teachers: this objective needs a teacher"),
        (named("grpo"), {"reward_funcs": []}, "reward_funcs: this objective needs rewards"),
        (named("grpo"), {"beta": 0.1}, "args.beta = 0.1: acts in TRL's own loss only"),
        (named("grpo"), {"loss_type": "dr_grpo"}, "args.loss_type = 'dr_grpo': acts in TRL's own loss only"),
        (named("grpo"), {"scale_rewards": "none"}, "args.scale_rewards = 'none': acts"),
        (named("grpo"), {"mask_truncated_completions": True}, "args.mask_truncated_completions: no objective takes"),
        (
            named("grpo"),
            {"num_iterations": 2, "save_strategy": "steps", "save_steps": 3},
            "args.save_steps = 3: must be a multiple of the 2 steps on one set of completions",
        ),
        (named("grpo"), {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}, "must be a multiple of"),
    ],
)
def test_what_is_missing_is_named(tmp_path, objective, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, objective, **options)


def test_the_policy_is_not_its_own_reference(tmp_path):
    start = model(0)
    with pytest.raises(ValueError, match="the policy itself is one of them"):
        trainer(tmp_path, named("rapo"), start=start, ref_model=start)
    assert all(p.requires_grad for p in start.parameters())


def test_several_steps_on_one_set_of_completions(tmp_path):
    """Then the batch says who drew it: the policy before the first of these steps."""
    recorder = Recorder(lambda b: objectives.grpo(b))
    start = model(0)
    made = trainer(tmp_path, recorder, start=start, num_iterations=2, max_steps=4, learning_rate=0.1,
                   reward_funcs=[lambda prompts, completions, **_: [float(len(set(c))) for c in completions]])  # fmt: skip
    recorder.model = start
    run(made)
    first, second, third, _ = recorder.batches
    assert torch.equal(first.tokens, second.tokens)
    assert not torch.equal(first.tokens, third.tokens)
    torch.testing.assert_close(
        second.old_log_probs[second.mask], first.log_probs.detach()[first.mask], atol=1e-5, rtol=0
    )
    assert (second.log_probs - second.old_log_probs)[second.mask].abs().max() > 1e-4  # the policy has moved


def test_an_unknown_domain(tmp_path):
    with pytest.raises(ValueError, match=r"domain 'mul' of prompt .*: no such teacher"):
        run(trainer(tmp_path, named("opd"), teachers={"add": model(1)}))


def test_a_checkpoint_that_is_cut_off_is_none(tmp_path, monkeypatch):
    made = trainer(tmp_path, named("grpo"), save_strategy="steps", save_steps=1)
    monkeypatch.setattr(made, "_save_rng_state", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(made)
    assert not list(tmp_path.glob("checkpoint-*"))  # its weights had been written already
