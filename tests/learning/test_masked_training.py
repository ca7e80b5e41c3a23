"""Training a part against the library's optimisers and torch; bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning import SGD, Adam
from klsim.learning.masked_training import train_part
from klsim.learning.networks import start_all, update

NAN = float("nan")
TARGET = np.random.default_rng(5).standard_normal((2, 6)).astype(np.float32)


def towards(parameters, step):
    return np.float32(0.1 * (step + 1)) * (parameters - TARGET)


@pytest.mark.parametrize(
    "optimiser", [SGD(0.1), Adam(0.01), Adam(0.03, beta1=0.5, beta2=0.9, epsilon=1e-3, weight_decay=0.1)]
)
def test_without_a_mask_it_is_the_optimiser_of_the_library(optimiser):
    held, states = (np.zeros((2, 6), np.float32),), start_all(optimiser, [TARGET])
    for step in range(20):
        held, states = update(states, held, [towards(held[0], step)], storage="float32")
    found = train_part(np.zeros((2, 6)), towards, optimiser, 20, record=[20])
    np.testing.assert_allclose(found.parameters, held[0], rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(found.snapshots[20], found.parameters)
    assert found.touched.all()


def test_adam_is_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(2, 6, requires_grad=True)
    optimiser = torch.optim.AdamW([theirs], lr=0.02, eps=1e-12, weight_decay=0.1)
    for step in range(30):
        theirs.grad = torch.tensor(towards(theirs.detach().numpy(), step))
        optimiser.step()
    found = train_part(np.zeros((2, 6)), towards, Adam(0.02, epsilon=1e-12, weight_decay=0.1), 30).parameters
    np.testing.assert_allclose(found, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_outside_of_the_mask_nothing_moves():
    mask = np.array([True, False, True, True, False, False])
    optimiser, start = Adam(0.01, weight_decay=0.1), np.ones((2, 6))
    found, full = (train_part(start, towards, optimiser, 9, mask=m) for m in (mask, None))
    assert (found.parameters[:, ~mask] == 1).all()
    np.testing.assert_array_equal(
        found.parameters[:, mask], full.parameters[:, mask]
    )  # coordinates do not interact here
    assert found.touched.all()


def test_touched_is_where_a_gradient_ever_was():
    def gradient(parameters, step):
        out = np.zeros(4)
        out[step] = (-1) ** step
        return out

    found = train_part(np.zeros(4), gradient, SGD(1.0), 3, record=[1, 2])
    assert found.touched.tolist() == [True, True, True, False]
    assert found.snapshots[1].tolist() == [-1, 0, 0, 0]
    assert found.snapshots[2].tolist() == [-1, 1, 0, 0]


def test_bfloat16_storage_loses_small_steps():
    start = np.ones(3)
    lost, kept = (train_part(start, lambda p, t: np.ones(3), SGD(1e-3), 10, storage=s) for s in ("bfloat16", "float32"))
    assert (lost.parameters == 1).all()
    np.testing.assert_allclose(kept.parameters, 0.99, atol=1e-6)


def test_long_and_transposed_starts_are_stepped_whole():
    start = np.asfortranarray(np.random.default_rng(6).standard_normal((3, 40_000)).astype(np.float32))
    optimiser, goal = Adam(0.1, weight_decay=0.1), np.ones((3, 40_000), np.float32)
    found = train_part(start, lambda p, t: p - goal, optimiser, 3).parameters
    for row, column in ((0, 0), (1, 20_000), (2, 39_999)):
        alone = train_part(start[row, column : column + 1], lambda p, t: p - 1, optimiser, 3).parameters
        assert found[row, column] == alone[0]


def test_the_input_is_left_alone():
    start = np.zeros(6, dtype=np.float32)
    train_part(start, lambda p, t: np.ones(6), SGD(1.0), 2)
    assert (start == 0).all()
    assert (train_part(start, lambda p, t: np.ones(6), SGD(1.0), 0).parameters == 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: train_part([NAN], lambda p, t: p, SGD(1.0), 1), "start"),
        (lambda: train_part([1e300], lambda p, t: p, SGD(1.0), 1), "start"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), -1), "steps"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, record=[2]), "record"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, mask=np.array([[True], [True]])), "mask"),
        (lambda: train_part([1.0, 2.0], lambda p, t: p, SGD(1.0), 1, mask=np.ones(3, bool)), "mask"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1.0), 1, storage="float64"), "storage"),
        (lambda: train_part([1.0], lambda p, t: np.ones(2), SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: [NAN], SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: [1e16], SGD(1.0), 1), "gradient"),
        (lambda: train_part([1.0], lambda p, t: p, Adam(1.0, epsilon=0.0), 1), "optimiser"),
        (lambda: train_part([1.0], lambda p, t: p, Adam(1.0, taken=1), 1), "optimiser"),
        (lambda: train_part([1.0], lambda p, t: p, SGD(1e50), 1), "optimiser"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_other_kinds_are_type_errors():
    with pytest.raises(TypeError, match="optimiser"):
        train_part([1.0], lambda p, t: p, "adam", 1)
    with pytest.raises(TypeError, match="gradient"):
        train_part([1.0], np.zeros(1), SGD(1.0), 1)
