"""Networks: the backward pass against finite differences and torch, rounding, batches of seeds, bad input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from klsim.learning import SGD, Adam
from klsim.learning.networks import (
    Linear,
    Network,
    ReLU,
    Tanh,
    rounded,
    softmax_cross_entropy,
    start_all,
    update,
)

LAYERS = (Linear(4, 6), Tanh(), Linear(6, 5, bias=False), ReLU(), Linear(5, 3))
X, LABELS = np.random.default_rng(1).standard_normal((7, 4)), np.array([0, 2, 1, 1, 0, 2, 2])


def loss_and_gradients(network, parameters, x=X, target=LABELS):
    logits, tape = network.forward(parameters, x)
    loss, slope = softmax_cross_entropy(logits, target)
    return loss.sum(axis=-1), network.backward(parameters, tape, slope)


def test_gradients_are_those_of_finite_differences():
    network, h = Network(LAYERS), 1e-6
    parameters = network.start(0)
    _, (gradients, at_input) = loss_and_gradients(network, parameters)
    for i, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            ends = []
            for sign in (1, -1):
                moved = [p.copy() for p in parameters]
                moved[i][index] += sign * h
                ends.append(loss_and_gradients(network, moved)[0])
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)
    for index in np.ndindex(X.shape):
        shift = np.zeros(X.shape)
        shift[index] = h
        up, down = (loss_and_gradients(network, parameters, X + s * shift)[0] for s in (1, -1))
        assert at_input[index] == pytest.approx((up - down) / (2 * h), abs=1e-8)


# one rounding of a result is half a unit in the last place: 2^-9 in bfloat16, 2^-24 in float32; gradients pass five layers
@pytest.mark.parametrize(("precision", "unit"), [("float64", 1e-14), ("float32", 2e-6), ("bfloat16", 2.0**-5)])
def test_gradients_are_those_of_torch(precision, unit):
    torch = pytest.importorskip("torch")
    network = Network(LAYERS, precision)
    parameters = network.start(0)
    loss, (gradients, _) = loss_and_gradients(network, parameters, rounded(X, precision))
    kept = [torch.tensor(p, dtype=getattr(torch, precision), requires_grad=True) for p in parameters]
    rest, x = iter(kept), torch.tensor(X, dtype=getattr(torch, precision))
    for layer in LAYERS:
        if isinstance(layer, Linear):
            x = torch.nn.functional.linear(x, next(rest), next(rest) if layer.bias else None)
        else:
            x = torch.relu(x) if isinstance(layer, ReLU) else torch.tanh(x)
    theirs = torch.nn.functional.cross_entropy(
        x.float() if precision == "bfloat16" else x, torch.tensor(LABELS), reduction="sum"
    )
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=unit)
    for ours, p in zip(gradients, kept):
        np.testing.assert_allclose(ours, p.grad.double().numpy(), atol=unit * np.abs(ours).max())


@pytest.mark.parametrize("optimiser", [SGD(0.1), Adam(0.01, weight_decay=0.1)])
def test_training_follows_torch_and_every_copy_its_own_path(optimiser):
    torch = pytest.importorskip("torch")
    network = Network(LAYERS)
    together = network.start(3, copies=(2,))
    first = [torch.tensor(p[0], requires_grad=True) for p in together]
    theirs = (
        torch.optim.SGD(first, lr=0.1)
        if isinstance(optimiser, SGD)
        else torch.optim.AdamW(first, lr=0.01, weight_decay=0.1)
    )
    second, alone = tuple(p[1] for p in together), start_all(optimiser, together)
    states = start_all(optimiser, together)
    for _ in range(20):
        _, (gradients, _) = loss_and_gradients(network, together)
        together, states = update(states, together, gradients)
        _, (gradients, _) = loss_and_gradients(network, second)
        second, alone = update(alone, second, gradients)
        theirs.zero_grad()
        rest, x = iter(first), torch.tensor(X)
        for layer in LAYERS:
            if isinstance(layer, Linear):
                x = torch.nn.functional.linear(x, next(rest), next(rest) if layer.bias else None)
            else:
                x = torch.relu(x) if isinstance(layer, ReLU) else torch.tanh(x)
        torch.nn.functional.cross_entropy(x, torch.tensor(LABELS), reduction="sum").backward()
        theirs.step()
    for ours, one, two in zip(together, first, second):
        np.testing.assert_allclose(ours[0], one.detach().numpy(), atol=1e-11)
        np.testing.assert_allclose(ours[1], two, atol=1e-13)


def test_inputs_may_differ_between_copies():
    network = Network(LAYERS)
    parameters, x = network.start(0, copies=(2,)), np.stack([X, 2 * X])
    logits, tape = network.forward(parameters, x)
    gradients, at_input = network.backward(parameters, tape, np.ones_like(logits))
    for k in range(2):
        own = tuple(p[k] for p in parameters)
        alone, tape = network.forward(own, x[k])
        np.testing.assert_allclose(logits[k], alone, atol=1e-14)
        expected, at = network.backward(own, tape, np.ones_like(alone))
        np.testing.assert_allclose(at_input[k], at, atol=1e-14)
        for ours, theirs in zip(gradients, expected):
            np.testing.assert_allclose(ours[k], theirs, atol=1e-14)


def test_bfloat16_rounds_once_to_the_nearest_even():
    grid = np.arange(2.0**15, 2.0**15 + 2**12, dtype=np.float32).view(np.uint32)[:64].view(np.float32)
    neighbours = np.unique(grid.astype(ml_dtypes.bfloat16)).astype(float)
    middle = (neighbours[:-1] + neighbours[1:]) / 2
    for off, expected in ((-1e-9, neighbours[:-1]), (1e-9, neighbours[1:])):
        np.testing.assert_array_equal(rounded(middle * (1 + off), "bfloat16"), expected)
        np.testing.assert_array_equal(rounded(-middle * (1 + off), "bfloat16"), -expected)
    assert rounded([1 + 2.0**-8, 1 + 2.0**-7 + 2.0**-8, 1 + 2.0**-8 + 2.0**-40], "bfloat16").tolist() == [
        1.0, 1 + 2.0**-6, 1 + 2.0**-7,
    ]  # fmt: skip
    assert rounded([1e39, -1e300, 0.0, 1e-300], "bfloat16").tolist() == [np.inf, -np.inf, 0.0, 0.0]
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.testing.assert_array_equal(rounded(x, "bfloat16"), x.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(rounded(x.astype(float), "float32"), x)


def test_a_bfloat16_network_holds_bfloat16_everywhere():
    network = Network(LAYERS, "bfloat16")
    parameters = network.start(0)
    logits, tape = network.forward(parameters, X)
    gradients, _ = network.backward(parameters, tape, np.ones_like(logits))
    for value in (*parameters, *tape.values, *gradients):
        np.testing.assert_array_equal(value, rounded(value, "bfloat16"))


def test_small_steps_are_lost_in_bfloat16_and_kept_by_masters():
    one, gradient = (np.ones(1),), (np.full(1, 2.0**-9),)  # 1 + 2^-9 is less than halfway to the next bfloat16
    stored, master = one, one
    for _ in range(8):
        stored, _ = update((SGD(-1.0),), stored, gradient, storage="bfloat16")
        master, _ = update((SGD(-1.0),), master, gradient, storage="float32")
    assert stored[0].tolist() == [1.0]
    assert rounded(master[0], "bfloat16").tolist() == [1 + 2.0**-6]


def test_cross_entropy_of_labels_of_laws_and_of_advantages():
    logits = np.array([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]])
    loss, slope = softmax_cross_entropy(logits, np.array([1, 2]))
    np.testing.assert_allclose(loss, [1000.0, np.log(3)])
    np.testing.assert_allclose(slope, [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], atol=1e-15)
    np.testing.assert_allclose(softmax_cross_entropy(logits[1], [0.2, 0.3, 0.5])[0], np.log(3))
    weighted = softmax_cross_entropy(logits[1], np.array([0.0, -2.0, 1.0]))
    np.testing.assert_allclose(weighted[1], [-1 / 3, -1 / 3 + 2, -1 / 3 - 1])
    np.testing.assert_allclose(weighted[0], np.log(3) * (-2 + 1))


def test_cross_entropy_of_labels_of_copies():
    logits, labels = np.random.default_rng(2).standard_normal((2, 3, 4)), np.array([[0, 3, 1], [3, 2, 0]])
    loss, slope = softmax_cross_entropy(logits, labels)
    for k in range(2):
        alone = softmax_cross_entropy(logits[k], labels[k])
        np.testing.assert_allclose(loss[k], alone[0], rtol=1e-14)
        np.testing.assert_allclose(slope[k], alone[1], atol=1e-15)


def test_a_network_without_parameters_takes_any_width():
    network = Network((Tanh(),))
    for width in (1, 5):
        outputs, tape = network.forward((), X[:, :1] * np.ones(width))
        np.testing.assert_allclose(outputs, np.tanh(X[:, :1] * np.ones(width)), rtol=1e-15)
        gradients, at_input = network.backward((), tape, np.ones_like(outputs))
        assert gradients == ()
        np.testing.assert_allclose(at_input, 1 - outputs**2, rtol=1e-15)


def of_two():
    return Network(LAYERS).start(0, copies=(2,))


def test_the_width_of_a_single_number_is_refused():
    with pytest.raises(ValueError, match="x: must have shape"):
        Network((ReLU(),)).forward((), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Network(()), "layers"),
        (lambda: Network((Linear(2, 3), Linear(4, 1))), "4 inputs"),
        (lambda: Network((Linear(2, 3),), "float16"), "precision"),
        (lambda: Linear(0, 3), "inputs"),
        (lambda: Network(LAYERS).forward((np.ones((6, 4)),), X), r"parameters: needs 5"),
        (
            lambda: Network(LAYERS).forward(Network(LAYERS).start(0), X[:, :2]),
            r"x: must have shape \('n', 4\), got \(7, 2\)",
        ),
        (lambda: Network(LAYERS).forward(Network(LAYERS).start(0), X[0]), r"x: must have shape .* got \(4,\)"),
        (lambda: Network(LAYERS).forward(Network(LAYERS).start(0), 1.0), r"x: must have shape .* got \(\)"),
        (lambda: Network((Tanh(),)).forward((), 1.0), r"x: must have shape .* got \(\)"),
        (lambda: Network((Tanh(),)).forward((), X[0]), r"x: must have shape .* got \(4,\)"),
        (lambda: Network((Tanh(),)).forward((), X[None]), r"x: must have shape .* got \(1, 7, 4\)"),
        (lambda: Network(LAYERS).forward(of_two(), np.stack([X] * 3)), r"\('n', 4\) or \(2, 'n', 4\), got \(3, 7, 4\)"),
        (
            lambda: Network(LAYERS).forward((of_two()[0], *Network(LAYERS).start(0)[1:]), X),
            r"parameters\[1\].*\(2, 6\)",
        ),
        (
            lambda: Network(LAYERS).forward((*of_two()[:4], np.ones((2, 9))), X),
            r"parameters\[4\]: must have .*\(2, 3\)",
        ),
        (lambda: Network(LAYERS).forward(Network(LAYERS).start(0), np.full((1, 4), np.inf)), "finite"),
        (
            lambda: Network((Linear(1, 1),), "float32").forward((np.full((1, 1), 1e38), np.ones(1)), [[1e38]]),
            "overflows",
        ),
        (lambda: softmax_cross_entropy(np.zeros((2, 3)), np.array([0, 3])), r"target\[1\] = 3"),
        (lambda: softmax_cross_entropy(np.zeros((2, 3)), np.array([0, -1])), r"target\[1\] = -1"),
        (lambda: softmax_cross_entropy(0.0, 0), "logits: needs a non-empty last axis"),
        (lambda: softmax_cross_entropy(np.zeros((2, 0)), np.zeros((2, 0))), "logits: needs a non-empty last axis"),
        (lambda: softmax_cross_entropy(np.zeros((2, 3)), np.zeros((2, 4))), "last axes"),
        (lambda: rounded([1.0, np.nan], "bfloat16"), r"x\[1\]"),
        (lambda: update((SGD(1.0),), (np.ones(2),), (np.ones(3),)), r"gradients\[0\]"),
        (lambda: update((), (np.ones(2),), (np.ones(2),)), "optimisers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
