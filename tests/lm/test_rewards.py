"""Rewards: verifiers by hand, functions of a file, weights, and errors that name function and row."""

from __future__ import annotations

import json

import pytest

from klsim.lm.rewards import VERIFIERS, boxed, exact, last_number, parse, regex
from klsim.lm.tasks import make

FILE = """
SEEN = []

def length(prompts, completions, **columns):
    SEEN.append(sorted(columns))
    return [len(c if isinstance(c, str) else c[0]["content"]) for c in completions]

def fails_on_three(completions, answer, **_):
    return [1 / (a - 3) for a in answer]

def fails_on_many(completions, **_):
    assert len(completions) < 2, "too many"
    return [0.0] * len(completions)

def none(completions, **_):
    return [None for _ in completions]

def one(completions, **_):
    return [1.0]

async def later(completions, **_):
    return [0.0 for _ in completions]

number = 3
"""


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "rewards.py"
    place.write_text(FILE)
    return str(place)


@pytest.mark.parametrize(
    ("verifier", "completion", "answer", "value"),
    [
        (exact, " 42\n", 42, 1),
        (exact, "42.0", 42, 0),
        (exact, "forty-two", "42", 0),
        (last_number, "3 + 4 is 7.", 7, 1),
        (last_number, "7, or rather 8", 7, 0),
        (last_number, "it is 1,234.50", 1234.5, 1),
        (last_number, "-3", 3, 0),
        (last_number, "x2 + 12kg", 12, 0),  # neither is a number by itself
        (last_number, "5-3", "2-3", 1),
        (last_number, "nothing", 7, 0),
        (last_number, "so 72", "48/2 = 24\n#### 72", 1),
        (last_number, "2e2", 200, 1),
        (boxed, r"so \boxed{\frac{1}{2}}", r"\frac{1} {2}", 1),
        (boxed, r"\boxed{1} no, \boxed{2}", "1", 0),
        (boxed, r"\boxed{1", "1", 0),
        (boxed, "1", "1", 0),
    ],
)
def test_verifiers_by_hand(verifier, completion, answer, value):
    assert verifier(completion, answer) == value


def test_tolerance_and_patterns():
    assert last_number("3.14", 3.14159, tolerance=1e-3) == 1
    assert last_number("3.14", 3.14159, tolerance=1e-4) == 0
    assert regex("answer: 3 answer: 4", 4, pattern=r"answer: (\d)") == 1
    assert regex("answer: 3 answer: 4", 3, pattern=r"answer: (\d)") == 0
    assert regex("<think>\nx\n</think>", pattern="<think>.*</think>") == 1
    assert regex("x", pattern="<think>") == 0
    with pytest.raises(ValueError, match="answer 'none': has no number"):
        last_number("3", "none")


def test_math_verify():
    pytest.importorskip("math_verify", reason="math-verify is optional")
    reward = parse("math_verify")
    given = {"answer": [r"$\frac{1}{2}$", "$2$"]}
    assert reward(["p", "p"], [r"so $0.5$", r"$\boxed{3}$"], **given) == [1.0, 0.0]


def test_a_function_a_verifier_and_their_weights(file):
    reward = parse([f"{file}:length", {"verifier": "exact", "column": "right", "weight": -2.0}])
    logged = {}
    given = {"right": ["a", "b"], "extra": [1, 2], "log_metric": logged.__setitem__}
    assert reward(["p", "q"], ["a", "bcd"], **given) == [1 - 2, 3]
    assert logged == {f"rewards/{file}:length": 2.0, "rewards/exact": 0.5}
    assert reward.columns == ("right",)
    messages = [[{"role": "assistant", "content": "a"}]]
    assert reward([[{"role": "user", "content": "p"}]], messages, right=["a"]) == [-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails_on_three", "ZeroDivisionError on the completion 'c2' of the prompt 'p2': division by zero"),
        ("fails_on_many", "AssertionError on 4 completions at once: too many"),
        ("none", "gave None, not a finite number, for the completion 'c0' of the prompt 'p0'"),
        ("one", "gave 1 values for 4 completions"),
    ],
)
def test_a_function_that_fails_is_named_with_the_row(file, name, message):
    reward = parse(f"{file}:{name}")
    with pytest.raises(ValueError) as caught:
        reward([f"p{i}" for i in range(4)], [f"c{i}" for i in range(4)], answer=[1, 2, 3, 4])
    assert f"{file}:{name}" in str(caught.value)
    assert message in str(caught.value)


def test_the_row_of_the_file_is_named(tmp_path, file):
    place = tmp_path / "a.jsonl"
    place.write_text("".join(json.dumps({"prompt": f"p{i}", "answer": i}) + "\n" for i in range(9)))
    task = make("mine", {"kind": "data", "path": str(place), "reward": f"{file}:fails_on_three"})
    with pytest.raises(
        ValueError, match=r"a\.jsonl, row 4: reward .*fails_on_three: ZeroDivisionError on the completion"
    ):
        task.reward(["p5", "p3"], ["x", "y"], answer=[5, 3])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "needs at least one"),
        (3, "reward = 3: must be a name, a table, or a list"),
        ({"weight": 1}, "give either function"),
        ({"verifier": "exact", "function": "a.py:b"}, "give either function"),
        ({"verifier": "exact", "weight": float("nan")}, "weight = nan: must be a finite number"),
        ({"verifier": "exact", "weight": True}, "weight = True: must be a finite number"),
        ({"verifier": "exact", "collumn": "x"}, "no option 'collumn'; near: column"),
        ({"verifier": "regex"}, "reward 'regex': pattern is missing"),
        ({"verifier": "regex", "pattern": "("}, r"pattern = '\(': missing \)"),
        ({"verifier": "last_number", "tolerance": -1}, "tolerance = -1: must be a number >= 0"),
        (["exact", "exact"], "exact is given twice"),
        ("exacto", "no such verifier .*near: exact"),
    ],
)
def test_specifications_that_do_not_fit(spec, message):
    with pytest.raises(ValueError, match=message):
        parse(spec)


def test_functions_that_do_not_fit(file):
    with pytest.raises(ValueError, match="is a coroutine"):
        parse(f"{file}:later")
    with pytest.raises(ValueError, match="has no function 'number'"):
        parse(f"{file}:number")
    with pytest.raises(ValueError, match="no option 'column'; a function takes weight alone"):
        parse({"function": f"{file}:one", "column": "x"})
    with pytest.raises(ValueError, match="there is no column 'answer'"):
        parse("exact")(["p"], ["c"])


def test_every_verifier_says_what_it_does():
    assert all(function.__doc__ and "1 if" in function.__doc__ for function in VERIFIERS.values())
