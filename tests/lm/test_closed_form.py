"""What a user runs, TRL's trainer with a klsim objective, lands on the closed form of the objective and not on the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from klsim.learning import PromptTree, TreeProblem
from klsim.learning.objective_checks import closed_forms, sequence_kl
from klsim.lm.models import character_tokenizer, tiny_model
from klsim.lm.objectives import named
from klsim.lm.table import tabulate
from klsim.lm.trainer import ObjectiveTrainer, quiet
from klsim.problems import TokenTree

HORIZON, LAM = 3, 1.5
TOKENIZER = character_tokenizer("ab")
PROMPT = "ab"
IDS = TOKENIZER.encode(PROMPT)


def language_model(seed: int, scale: float, hidden: int = 32):
    """Small, with weights that make it opinionated."""
    made = tiny_model(TOKENIZER, hidden=hidden, layers=2, heads=2, seed=seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale / 0.02)
    return made


def levels(model):
    return tabulate(model, IDS, HORIZON, eos=TOKENIZER.eos_token_id).levels


def world(student, ref, teacher) -> TreeProblem:
    size = len(TOKENIZER)
    tree = TokenTree(size, HORIZON, np.zeros(size**HORIZON), eos=TOKENIZER.eos_token_id)
    return TreeProblem([PromptTree(tree, levels(student), levels(ref), levels(teacher))])


@pytest.mark.slow
@pytest.mark.parametrize("discount", [0, 1])
def test_the_trainer_lands_on_its_own_optimum(tmp_path, discount):
    # of a few seeds those whose two optima are furthest apart: 0.3 and 0.4 nats
    ref, teacher, student = language_model(1, 0.3), language_model(6, 0.3), language_model(9, 0.05, hidden=64)
    before = world(student, ref, teacher)
    forms = closed_forms(before, lam=LAM)
    optima = [forms["token mixture"], forms["sequence mixture"]]
    own, other = optima if discount == 0 else optima[::-1]
    objective = named("g_opd", lam=LAM, discount=discount, clip=[math.inf, math.inf], aggregate="sequence_sum")
    with quiet():
        args = GRPOConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
            max_steps=200,             per_device_train_batch_size=256, num_generations=64, max_completion_length=HORIZON, learning_rate=4e-3,
            lr_scheduler_type="cosine", warmup_steps=25, adam_beta2=0.95, save_strategy="no", disable_tqdm=True,
            remove_unused_columns=False, dataloader_pin_memory=False, logging_steps=200, seed=1,
        )  # fmt: skip
        ObjectiveTrainer(
            model=student, objective=objective, args=args, ref_model=ref, teachers={"only": teacher},
            train_dataset=Dataset.from_list([{"prompt": PROMPT}] * 4), processing_class=TOKENIZER,
        ).train()  # fmt: skip
    after = world(student, ref, teacher)
    assert sequence_kl(before, own) > 1  # it starts far away
    assert sequence_kl(after, own) < 0.03
    assert sequence_kl(after, other) > 0.2
