"""The worlds of the audit: their probabilities, their padding, and agreement with the plain expectation."""

from __future__ import annotations

import numpy as np
import pytest

from klsim import objectives as o
from klsim.audit.batches import JUNK
from klsim.audit.targets import SCHEMES, load_target, schemes
from klsim.audit.worlds import OFF_POLICY, TOKEN_MEAN, Setting, required_worlds, world
from klsim.learning import expected_gradient

torch = pytest.importorskip("torch")

ENUMERATED = (*required_worlds(Setting()), "trimmed", "cut responses masked", "groups of one", *OFF_POLICY)


@pytest.mark.parametrize("setting", [Setting(), Setting(equal=True), Setting(vocab=5), Setting(writer="teacher")])
def test_probabilities_sum_to_one(setting):
    for name in (*required_worlds(setting), *OFF_POLICY):
        here = world(name, setting)
        batches = len(set(here.problem.together))
        assert np.isclose(sum(w for _, w in here.draws), batches), name


@pytest.mark.parametrize(
    "name", ["lengths", "two prompts", "groups of 4", "graded rewards", "off-policy", "vocabulary"]
)
def test_gradients_agree_with_the_plain_expectation(name):
    """The same responses, padded and grouped by other code."""

    def loss(batch):
        return o.reinforce(batch.validated() if hasattr(batch, "validated") else batch)

    here = world(name)
    plain = expected_gradient(loss, here.problem, group_size=here.group_size, max_batches=10**6).gradient
    assert np.allclose(here.batches.logits(here.gradient(loss)), plain, atol=1e-14)
    assert not here.batches.junk(here.gradient(loss)).any()


@pytest.mark.parametrize("name", ["lengths", "left padding", "holes", "trimmed", "two prompts"])
def test_only_masked_positions_read_junk(name):
    here = world(name)
    made, prefixes = here.batches, len(here.problem.node_prompt)
    assert bool(((made.nodes >= prefixes) == ~made.mask).all())
    assert made.table.shape[0] == prefixes + JUNK
    batch = made.batch(torch.tensor(here.draws[3][0]))
    assert bool(torch.isfinite(batch.log_probs).all())
    assert bool((batch.mask.sum(1) == made.length[torch.tensor(here.draws[3][0])]).all())


def test_layouts():
    short = {
        name: world(name).batches.mask[world(name).problem.length == 2].tolist()[0]
        for name in ("left padding", "holes")
    }
    assert short == {"left padding": [False, True, True], "holes": [True, False, True]}
    cut = world("trimmed")
    rows = torch.tensor(np.flatnonzero(cut.problem.length < 3)[:2])
    assert cut.batches.batch(rows).log_probs.shape[1] == int(cut.problem.length[rows.numpy()].max())
    assert cut.batches.batch(rows).max_length == 3


def test_other_values_than_the_responses_are_there():
    batch = world("lengths").batches.batch(torch.tensor(world("lengths").draws[1][0]))
    for name in ("values", "old_values", "rollout_log_probs", "greedy_rewards", "ended"):
        assert getattr(batch, name) is not None
    pair = world("pairs")
    batch = pair.batches.batch(torch.tensor(pair.draws[0][0]))
    assert int(batch.preferred.sum()) == 1
    chosen, rejected = batch.rewards[batch.preferred], batch.rewards[~batch.preferred]
    assert bool((chosen > rejected).all())


def test_three_policies_differ_where_the_sampler_does():
    here = world("sampler").problem
    for one, two in (("policy", "old"), ("old", "behaviour"), ("policy", "behaviour")):
        assert np.abs(here.tables[one] - here.tables[two]).max() > 0.1


@pytest.mark.parametrize("name", TOKEN_MEAN)
def test_the_large_batch_is_the_population(name):
    here = world(name)
    problem, p = here.problem, np.exp(here.problem.log_prob("behaviour"))
    for batch, (rows, weight) in enumerate(here.draws):
        assert weight == 1
        counts = np.bincount(rows, minlength=len(p))
        for prompt in np.flatnonzero(problem.together == batch):
            at = problem.prompt == prompt
            assert np.allclose(counts[at] / counts[at].sum(), p[at])
    groups = np.array(here.group).reshape(-1, 2)
    assert (groups[:, 0] == groups[:, 1]).all()


def test_known_schemes():
    assert set(SCHEMES) <= set(schemes())
    with pytest.raises(ValueError, match="trl:"):
        load_target("nothing")


def test_other_packages_add_targets(monkeypatch):
    from importlib.metadata import EntryPoint

    from klsim.audit import targets

    entry = EntryPoint("mine", "klsim.audit.targets.klsim_:load", targets.GROUP)
    monkeypatch.setattr(targets, "entry_points", lambda group: [entry] if group == targets.GROUP else [])
    assert "mine" in schemes()
    assert load_target("mine:rloo").name == "mine:rloo"
