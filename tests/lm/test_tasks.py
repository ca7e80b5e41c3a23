"""Tasks: every solution earns the reward, verifiers are exact, laws are the stated ones, bad input is refused."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from klsim.lm import tasks
from klsim.lm.tasks import Countdown, ModularArithmetic, Satisfiability
from klsim.lm.tasks.countdown import evaluate_expression, reachable
from klsim.lm.tasks.modular import steps
from klsim.lm.tasks.satisfiability import VARIABLES, clauses_text, planted_clause

FAMILIES = [
    ModularArithmetic(),
    ModularArithmetic(modulus=7, terms=4, operations="+*-", high=30),
    ModularArithmetic(modulus=23, terms=2, operations="*", chain=False),
    Countdown(),
    Countdown(count=4, high=12, max_target=30, operations="+-*/", use_all=False),
    Countdown(count=2, high=3, max_target=5, operations="-"),
    Satisfiability(),
    Satisfiability(n=2, k=3, l=9, boxed=True, signed=True),
    Satisfiability(n=1, k=1, l=1),
    Satisfiability(n=4, k=12, l=20),
]
every_task = pytest.mark.parametrize("task", FAMILIES, ids=lambda task: task.name)


def grade(task, rows, completions):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return task.reward(columns.pop("prompt"), completions, completion_ids=None, **columns)


# --- all families


@every_task
def test_every_solution_earns_the_reward(task):
    rows = task.examples(100, seed=1)
    assert grade(task, rows, [row["solution"] for row in rows]) == [1.0] * 100


@every_task
def test_sizes_and_alphabet_hold(task):
    rows = task.examples(200, seed=2)
    assert max(len(row["prompt"]) for row in rows) <= task.max_prompt_tokens
    assert max(len(row["solution"]) for row in rows) < task.max_completion_tokens
    assert set("".join(row["prompt"] + row["solution"] for row in rows)) <= set(task.alphabet)
    assert len(set(task.alphabet)) == len(task.alphabet)


@every_task
def test_seeds_reproduce_and_first_rows_do_not_depend_on_the_count(task):
    rows = task.examples(20, seed=3)
    assert rows == task.examples(50, seed=3)[:20]
    if task.most_problems > 100:
        assert rows != task.examples(20, seed=4)


@every_task
def test_tasks_are_values(task):
    assert pickle.loads(pickle.dumps(task)) == task
    assert type(task)(**task.knobs) == task
    assert task.reward.__name__ == "reward"  # TRL names the logged column so


@every_task
def test_difficulty_is_finite(task):
    assert math.isfinite(task.difficulty())


def test_names_are_unique():
    assert len({task.name for task in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    "task", [ModularArithmetic(modulus=5), Countdown(), Satisfiability(n=2, k=3, l=3)], ids=lambda t: t.name
)
def test_split_is_disjoint_and_the_test_part_does_not_depend_on_the_train_part(task):
    split = task.split(60, 30, seed=0)
    prompts = [row["prompt"] for row in split.train + split.test]
    assert (len(split.train), len(split.test)) == (60, 30)
    assert len(set(prompts)) == 90
    assert task.split(5, 30, seed=0).test == split.test
    assert task.split(60, 30, seed=1).test != split.test


def test_a_whole_space_can_be_split_and_no_more():
    task = ModularArithmetic(modulus=5, terms=2)
    assert len(task.split(15, 10).train) == 15
    with pytest.raises(ValueError) as error:
        task.split(16, 10)
    assert str(error.value) == "train + test = 26: modular(+ mod 5, 2 terms to 4) has at most 25 distinct problems"


def test_an_upper_bound_that_is_not_reached_is_found_out():
    task = Countdown(count=2, high=2, max_target=99, operations="+")  # 1+1, 1+2, 2+2
    assert len(task.split(2, 1).train) == 2
    with pytest.raises(ValueError, match="showed only 3 distinct problems in 1400 draws; ask for fewer rows"):
        task.split(3, 1)


def test_harder_knobs_have_a_larger_difficulty():
    for easy, hard in [
        (ModularArithmetic(terms=2), ModularArithmetic(terms=5)),
        (ModularArithmetic(modulus=5), ModularArithmetic(modulus=50)),
        (Countdown(count=3), Countdown(count=4)),
        (Countdown(operations="+"), Countdown(operations="+-")),
        (Satisfiability(l=5), Satisfiability(l=13)),
    ]:
        assert easy.difficulty() < hard.difficulty()


# --- reward functions


def test_conversational_completions_are_graded_like_text():
    task = ModularArithmetic()
    rows = task.examples(3)
    said = [[{"role": "assistant", "content": row["solution"]}] for row in rows]
    assert grade(task, rows, said) == [1.0] * 3


@pytest.mark.parametrize(
    "completion",
    [
        None,
        3,
        b"9",
        [],
        {"role": "assistant", "content": "9"},
        [{"role": "user", "content": "9"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "9"}]}],
        [{"role": "assistant", "content": "9"}, {"role": "assistant", "content": "9"}],
    ],
)
def test_other_completions_are_refused(completion):
    with pytest.raises(ValueError) as error:
        ModularArithmetic().reward(["p", "p"], ["9", completion], answer=["9", "9"])
    rule = "must be a string or a list of one assistant message with text content"
    assert str(error.value) == f"completions[1]: {rule}"


@pytest.mark.parametrize(
    ("arguments", "columns", "message"),
    [
        ((["p"], ["9", "9"]), {"answer": ["9", "9"]}, "completions: 2 for 1 prompts; one each is needed"),
        ((["p"], ["9"]), {}, "reward of modular(+ mod 10, 3 terms to 9): needs the column 'answer'"),
        ((["p"], ["9"]), {"answer": ["9", "9"]}, "answer: needs a list with one entry for each of 1 completions"),
        ((["p"], ["9"]), {"answer": "9"}, "answer: needs a list with one entry for each of 1 completions"),
    ],
)
def test_columns_that_do_not_fit_are_refused(arguments, columns, message):
    with pytest.raises(ValueError) as error:
        ModularArithmetic().reward(*arguments, **columns)
    assert str(error.value) == message


def test_rows_of_several_tasks_are_graded_by_their_own():
    made = {"add": ModularArithmetic(), "reach": Countdown(), "sat": Satisfiability(signed=True)}
    rows = [row | {"domain": name} for name, task in made.items() for row in task.examples(2)]
    columns = {name: [row.get(name) for row in rows] for name in {key for row in rows for key in row}}
    prompts = columns.pop("prompt")
    reward = tasks.reward_of(made)
    assert reward(prompts, [row["solution"] for row in rows], **columns) == [1.0] * 6
    assert reward(prompts, ["x"] * 6, **columns) == [0.0] * 4 + [-1.0] * 2
    with pytest.raises(ValueError) as error:
        reward(prompts, ["x"] * 6, **columns | {"domain": ["add"] * 5 + ["mul"]})
    assert str(error.value) == "domain[5] = 'mul': must be one of 'add', 'reach', 'sat'"
    with pytest.raises(ValueError, match="needs the column 'domain'"):
        reward(prompts[:1], ["x"])


def test_demonstrations_and_joint_alphabet():
    task = ModularArithmetic()
    row = task.examples(1)[0]
    assert tasks.demonstrations([row]) == [{"prompt": row["prompt"], "completion": row["solution"]}]
    both = tasks.joint_alphabet(task, Countdown())
    assert set(both) == set(task.alphabet) | set(Countdown().alphabet)
    assert list(both) == sorted(set(both))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "tasks.t: kind is missing: must be one of 'modular', 'countdown', 'satisfiability', 'data', 'reasoning_gym'"),
        ({"kind": "sat"}, "tasks.t: kind = 'sat': must be one of 'modular', 'countdown', 'satisfiability', 'data', 'reasoning_gym'"),
        ({"kind": "countdown", "term": 3}, "tasks.t: no knob 'term'; countdown has count, high, max_target, operations, use_all"),
        ({"kind": "modular", "terms": 1}, "tasks.t: terms = 1: must be >= 2"),
        ({"kind": "modular", "terms": 2.0}, "tasks.t: terms = 2.0: must be an integer"),
    ],
)  # fmt: skip
def test_tables_of_a_configuration_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        tasks.make("t", options)
    assert str(error.value) == message


def test_a_table_of_a_configuration_makes_the_task():
    assert tasks.make("t", {"kind": "modular", "operations": "*"}) == ModularArithmetic(operations="*")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModularArithmetic(modulus=1), "modulus = 1: must be >= 2"),
        (lambda: ModularArithmetic(operations=""), "operations = '': must be distinct characters of '+-*', at least one"),
        (lambda: ModularArithmetic(operations="++"), "operations = '++': must be distinct characters of '+-*', at least one"),
        (lambda: ModularArithmetic(operations=["+"]), "operations = ['+']: must be distinct characters of '+-*', at least one"),
        (lambda: ModularArithmetic(operations="/"), "operations = '/': must be distinct characters of '+-*', at least one"),
        (lambda: ModularArithmetic(high=0), "high = 0: must be >= 1"),
        (lambda: ModularArithmetic(chain=1), "chain = 1: must be True or False"),
        (lambda: Countdown(count=7), "count = 7: must be <= 6"),
        (lambda: Countdown(high=0), "high = 0: must be >= 1"),
        (lambda: Countdown(max_target=0), "max_target = 0: must be >= 1"),
        (lambda: Satisfiability(n=0), "n = 0: must be >= 1"),
        (lambda: Satisfiability(n=6), "n = 6: must be <= 5"),
        (lambda: Satisfiability(k=27), "k = 27: must be <= 26"),
        (lambda: Satisfiability(n=3, k=5, l=71), "l = 71: must be <= 70"),
        (lambda: Satisfiability().examples(-1), "count = -1: must be >= 0"),
        (lambda: Satisfiability().examples(1, seed=-1), "seed = -1: must be >= 0"),
        (lambda: Countdown(count=2, high=1, operations="-").examples(1),
         "countdown(all of 2 numbers to 1, -, target to 99): no target in 1000 draws of numbers; allow more operations or larger targets"),
    ],
)  # fmt: skip
def test_knobs_that_do_not_fit_are_refused(make, message):
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert str(error.value) == message


# --- modular arithmetic


@given(st.lists(st.integers(0, 99), min_size=2, max_size=6), st.integers(2, 50), st.data())
def test_steps_end_at_the_value_of_the_expression(operands, modulus, data):
    signs = data.draw(st.text("+-*", min_size=len(operands) - 1, max_size=len(operands) - 1))
    expression = "".join(f"{x}{s}" for x, s in zip(operands, signs + " "))
    assert steps(operands, signs, modulus)[-1] == eval(expression) % modulus


def test_the_example_of_the_docstring():
    assert steps([17, 25, 3], "+*", 7) == [5, 1]


@pytest.mark.parametrize(
    ("completion", "chain", "direct"),
    [
        ("1", 1, 1), ("5;1", 1, 0), ("99;5;1", 1, 0), ("1;5", 0, 0), ("5;2", 0, 0), ("", 0, 0), (";1", 0, 0), ("5;", 0, 0),
        ("5;1;", 0, 0), ("5;;1", 0, 0), (" 1", 0, 0), ("1 ", 0, 0), ("1\n", 0, 0), ("01", 0, 0), ("+1", 0, 0), ("1.0", 0, 0),
        ("\u0661", 0, 0), ("5;1<pad>", 0, 0),
    ],
)  # fmt: skip
def test_modular_verifier(completion, chain, direct):
    assert ModularArithmetic().score(completion, {"answer": "1"}) == chain
    assert ModularArithmetic(chain=False).score(completion, {"answer": "1"}) == direct


def test_domains_share_their_alphabet_and_nothing_else():
    add, multiply = ModularArithmetic(operations="+"), ModularArithmetic(operations="*")
    assert add.alphabet == multiply.alphabet
    assert not {r["prompt"] for r in add.examples(100)} & {r["prompt"] for r in multiply.examples(100)}


# --- countdown

leaves = st.integers(0, 9).map(str)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join), inner.map(lambda text: f"({text})")
    ),
    max_leaves=8,
)


@given(expressions)
def test_expressions_have_the_value_that_python_gives_them(text):
    numbers = [int(c) for c in text if c.isdigit()]
    exact = "".join(f"Fraction({c})" if c.isdigit() else c for c in text)
    try:
        value = eval(exact)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="divides by zero"):
            evaluate_expression(text, numbers)
    else:
        assert evaluate_expression(text, numbers, use_all=True) == value


@given(st.text("0123456789+-*/() .e_", max_size=8))
def test_no_text_breaks_the_parser(text):
    try:
        value = evaluate_expression(text, list(range(10)))
    except ValueError:
        return
    assert value == eval("".join(f"Fraction({c})" if c.isdigit() else c for c in text), {"Fraction": Fraction})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': a number is missing"),
        ("3+", "'3+': a number is missing"),
        ("+3", "'+3': a number is missing"),
        ("-3+5", "'-3+5': a number is missing"),
        ("3**5", "'3**5': a number is missing"),
        ("()", "'()': a number is missing"),
        ("3(5)", "'3(5)': an operator is missing"),
        ("(3)5", "'(3)5': an operator is missing"),
        ("(3+5", "'(3+5': parentheses do not match"),
        ("3+5)", "'3+5)': parentheses do not match"),
        ("3/5", "'3/5': the operator / is not allowed"),
        ("3 + 5", "'3 + 5': only digits, + - * / and parentheses are allowed"),
        ("3+5\n", "'3+5\\n': only digits, + - * / and parentheses are allowed"),
        ("3+5.0", "'3+5.0': only digits, + - * / and parentheses are allowed"),
        ("3+3", "'3+3': must use each of [3, 5, 7] at most once"),
        ("35", "'35': must use each of [3, 5, 7] at most once"),
        ("03", "'03': must use each of [3, 5, 7] at most once"),
        ("3+4", "'3+4': must use each of [3, 5, 7] at most once"),
    ],
)
def test_what_is_no_expression_is_refused(text, message):
    with pytest.raises(ValueError) as error:
        evaluate_expression(text, [3, 5, 7], "+-*")
    assert str(error.value) == message
    assert Countdown(use_all=False).score(text, {"numbers": [3, 5, 7], "target": 8}) == 0.0


def test_use_all_asks_for_every_number():
    columns = {"numbers": [3, 5, 7], "target": 8}
    assert Countdown(use_all=False).score("3+5", columns) == 1.0
    assert Countdown(use_all=True).score("3+5", columns) == 0.0
    assert Countdown(use_all=True).score("3*5-7", columns) == 1.0
    assert Countdown(use_all=True).score("((3*(5)))-7", columns) == 1.0


def test_hostile_completions_are_cheap():
    columns = {"numbers": [1, 2], "target": 3}
    for text in ("(" * 100_000, "(" * 50_000 + "1" + ")" * 50_000 + "+2", "9" * 100_000, "1+2" * 30_000):
        assert Countdown(count=2).score(text, columns) in (0.0, 1.0)


def _combine_two_at_a_time(values: tuple[int, ...], operations: str) -> set[int]:
    if len(values) == 1:
        return set(values)
    out = set()
    for i, j in itertools.permutations(range(len(values)), 2):
        a, b = values[i], values[j]
        rest = tuple(v for at, v in enumerate(values) if at not in (i, j))
        made = {"+": a + b, "*": a * b}
        if a >= b:
            made["-"] = a - b
        if b and a % b == 0:
            made["/"] = a // b
        for operation in operations:
            if operation in made:
                out |= _combine_two_at_a_time((*rest, made[operation]), operations)
    return out


@pytest.mark.parametrize("numbers", [(1, 1), (2, 7), (3, 5, 6), (1, 1, 1), (2, 2, 3, 9), (4, 5, 6, 11)])
@pytest.mark.parametrize("operations", ["+", "+-*", "-*/", "+-*/"])
def test_search_finds_exactly_what_brute_force_finds(numbers, operations):
    whole = {v for v in _combine_two_at_a_time(numbers, operations) if 1 <= v <= 99}
    found = reachable(numbers, operations, use_all=True)
    assert set(found) == whole
    some = {
        v
        for size in range(1, len(numbers) + 1)
        for subset in itertools.combinations(numbers, size)
        for v in _combine_two_at_a_time(subset, operations)
        if 1 <= v <= 99
    }
    assert set(reachable(numbers, operations)) == some
    longest = Countdown(count=len(numbers), high=max(numbers)).max_completion_tokens
    for value, text in found.items():
        assert evaluate_expression(text, list(numbers), operations, use_all=True) == value
        assert len(text) < longest


# --- satisfiability


def test_the_numbered_clauses_are_all_that_the_solution_satisfies():
    for n, k, bits in [(1, 3, "010"), (2, 4, "1101"), (3, 5, "00110"), (4, 4, "1111")]:
        every = {
            clause
            for variables in itertools.combinations(range(k), n)
            for signs in itertools.product([False, True], repeat=n)
            if tasks.satisfies([clause := tuple(zip(variables, signs))], bits)
        }
        assert {planted_clause(i, bits, n) for i in range(tasks.clause_count(n, k))} == every
        assert len(every) == tasks.clause_count(n, k)


def test_text_of_a_formula_is_the_papers():
    assert tasks.parse_clauses("!B!C!D & A!B!D") == [
        ((1, False), (2, False), (3, False)),
        ((0, True), (1, False), (3, False)),
    ]
    assert clauses_text(tasks.parse_clauses("!B!C!D & A!B!D")) == "!B!C!D & A!B!D"


@pytest.mark.parametrize("text", ["", "A&B", "A & ", "a", "!!A", "A! & B", "A  & B", "Ä"])
def test_text_that_is_no_formula_is_refused(text):
    with pytest.raises(ValueError, match=r"clauses\[\d\] = .*must be letters A to Z"):
        tasks.parse_clauses(text)


def _python_truth(text: str, bits: str) -> bool:
    """The formula as a Python expression."""
    parts = []
    for part in text.split(" & "):
        literals, negative = [], ""
        for character in part:
            if character == "!":
                negative = "not "
            else:
                literals.append(f"{negative}{bits[VARIABLES.index(character)]}")
                negative = ""
        parts.append("(" + " or ".join(literals) + ")")
    return bool(eval(" and ".join(parts)))


@pytest.mark.parametrize(("n", "k", "l"), [(3, 5, 5), (2, 3, 6), (1, 4, 3), (4, 5, 30)])
def test_verifier_is_the_truth_table(n, k, l):  # noqa: E741
    task = Satisfiability(n, k, l)
    answers = ["".join(bits) for bits in itertools.product("01", repeat=k)]
    for row in task.examples(30, seed=5):
        truth = [float(_python_truth(row["clauses"], bits)) for bits in answers]
        assert [task.score(bits, row) for bits in answers] == truth
        assert tasks.count_solutions(tasks.parse_clauses(row["clauses"]), k) == sum(truth)


def test_formulas_have_distinct_clauses_of_distinct_variables():
    for row in Satisfiability(3, 5, 60).examples(20):
        clauses = tasks.parse_clauses(row["clauses"])
        assert len(set(clauses)) == 60
        assert clauses == sorted(clauses)
        assert all([v for v, _ in c] == sorted({v for v, _ in c}) for c in clauses)


def test_law_is_proportional_to_the_number_of_solutions_and_not_uniform():
    n, k, l, draws = 2, 3, 3, 20_000  # noqa: E741
    literals = [tuple(zip(v, s)) for v in itertools.combinations(range(k), n) for s in itertools.product([False, True], repeat=n)]  # fmt: skip
    formulas = list(itertools.combinations(sorted(literals), l))
    law = [tasks.formula_probability(formula, k) for formula in formulas]
    assert len(formulas) == 220
    assert sum(law) == 1
    index = {clauses_text(formula): i for i, formula in enumerate(formulas)}
    drawn = [index[row["clauses"]] for row in Satisfiability(n, k, l).examples(draws, seed=0)]
    counts = np.bincount(drawn, minlength=len(formulas))
    assert stats.chisquare(counts, [float(p) * draws for p in law]).pvalue > 1e-3
    assert stats.chisquare(counts).pvalue < 1e-40  # the control: uniform, as printed


@pytest.mark.parametrize(
    ("level", "expected"),
    [((3, 5, 5), 16.285), ((3, 5, 13), 5.509), ((3, 5, 20), 2.406), ((2, 5, 6), 5.944), ((4, 6, 12), 29.19)],
)
def test_expected_solutions_are_exact_and_the_unplanted_count_is_not(level, expected):
    exact = tasks.expected_solutions(*level)
    assert isinstance(exact, Fraction)
    assert float(exact) == pytest.approx(expected, abs=5e-3)
    rows = Satisfiability(*level).examples(400, seed=7)
    counts = np.array([tasks.count_solutions(tasks.parse_clauses(row["clauses"]), level[1]) for row in rows])
    assert abs(counts.mean() - float(exact)) < 4 * counts.std(ddof=1) / 20
    assert counts.min() >= 1


def test_the_unplanted_count_is_refuted_at_many_clauses():
    n, k, l = 3, 5, 40  # noqa: E741
    counts = np.array(
        [tasks.count_solutions(tasks.parse_clauses(row["clauses"]), k) for row in Satisfiability(n, k, l).examples(200)]
    )
    unplanted = 2**k * (1 - 2.0**-n) ** l
    assert unplanted / float(tasks.expected_solutions(n, k, l)) == pytest.approx(0.149, abs=1e-3)
    assert counts.mean() - unplanted > 4 * counts.std(ddof=1) / math.sqrt(200)


def test_expected_solutions_are_the_mean_under_the_law():
    n, k, l = 2, 3, 2  # noqa: E741
    literals = [tuple(zip(v, s)) for v in itertools.combinations(range(k), n) for s in itertools.product([False, True], repeat=n)]  # fmt: skip
    formulas = list(itertools.combinations(literals, l))
    mean = sum(tasks.formula_probability(f, k) * tasks.count_solutions(f, k) for f in formulas)
    assert mean == tasks.expected_solutions(n, k, l)


@pytest.mark.parametrize(
    ("level", "p0"), [((3, 5, 5), 0.509), ((3, 5, 15), 0.133), ((3, 7, 40), 0.014), ((6, 7, 40), 0.518)]
)
def test_guess_probability_is_the_digests(level, p0):
    assert Satisfiability(*level).guess_probability() == pytest.approx(p0, abs=5e-4)


def test_difficulty_is_the_papers():
    assert tasks.difficulty(3, 5, 5) == pytest.approx(5.63, abs=5e-3)
    assert Satisfiability(3, 7, 40).difficulty() == pytest.approx(12.78, abs=5e-3)


FORMULA = {"clauses": "AB & !AC", "variables": 3}


@pytest.mark.parametrize(
    ("completion", "bare", "boxed"),
    [
        ("010", (1, 1), (0, -1)),
        (r"\boxed{010}", (0, -1), (1, 1)),
        ("", (0, -1), (0, -1)),
        (r"\boxed{}", (0, -1), (0, 0)),
        (r"\boxed{01}", (0, -1), (0, 0)),
        (r"\boxed{0100}", (0, -1), (0, 0)),
        (r"\boxed{ 010}", (0, -1), (0, 0)),
        (r"\boxed{01x}", (0, -1), (0, 0)),
        (r"\boxed{000}", (0, -1), (0, 0)),
        (r"\boxed{000} no, \boxed{010}.", (0, -1), (1, 1)),
        (r"\boxed{010} no, \boxed{000}.", (0, -1), (0, 0)),
        (r"\boxed{010} no, \boxed{}.", (0, -1), (0, 0)),
        (r"\boxed{010", (0, -1), (0, -1)),
        ("010\n", (0, -1), (0, -1)),
        ("0100", (0, -1), (0, -1)),
        ("01", (0, -1), (0, -1)),
        ("\u0660\u0661\u0660", (0, -1), (0, -1)),
        ("000", (0, 0), (0, -1)),
    ],
)
def test_satisfiability_verifier(completion, bare, boxed):
    for box, (plain, signed) in ((False, bare), (True, boxed)):
        assert Satisfiability(2, 3, 2, boxed=box).score(completion, FORMULA) == plain
        assert Satisfiability(2, 3, 2, boxed=box, signed=True).score(completion, FORMULA) == signed


def test_a_lenient_verifier_pays_for_the_empty_box_and_ours_does_not():
    task = Satisfiability(3, 5, 5, boxed=True)
    rows = task.examples(300, seed=11)
    lenient = [tasks.satisfies(tasks.parse_clauses(row["clauses"]), "".ljust(5, "0")) for row in rows]
    p0 = task.guess_probability()
    assert abs(np.mean(lenient) - p0) < 4 * math.sqrt(p0 * (1 - p0) / 300)
    assert grade(task, rows, [r"\boxed{}"] * 300) == [0.0] * 300


def test_one_levels_reward_grades_anothers_rows():
    rows = Satisfiability(3, 7, 20).examples(20)
    assert grade(Satisfiability(3, 5, 5), rows, [row["solution"] for row in rows]) == [1.0] * 20
