r"""The audit: exact expected gradients in a set of worlds, identified, and held against an expectation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from klsim import _validate
from klsim._shown import Shown
from klsim.audit import effects as effect
from klsim.audit import traits
from klsim.audit.expectation import Expectation, parse_expectation
from klsim.audit.expected import Fit, Met, Scale, fits, hold
from klsim.audit.gradients import Gradients
from klsim.audit.identify import Combination, combination_text, identify, is_combination
from klsim.audit.pairs import Push, pushes
from klsim.audit.properties import OTHERS, REWARDS, Properties, properties
from klsim.audit.target import LossFunction, Target, from_function
from klsim.audit.verdict import verdict
from klsim.audit.worlds import EQUAL, OFF_POLICY, PREFERENCE, TOKEN_MEAN, Setting, required_worlds, world
from klsim.learning.functionals import Functional

__all__ = ["Audit", "as_json", "audit"]

IDENTIFIED = ("equal lengths", "lengths", "large batch", "off-policy", "teacher's responses")


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """What a loss implementation does.

    Attributes:
        target, version: what was audited. verdict: in words. setting: of the worlds.
        found: the gradient in the worlds `IDENTIFIED`. skipped: worlds in which the loss could not be evaluated, why.
        off_policy_as_on: the off-policy gradient is the on-policy combination. far_as_near: far from the reference
            too; false for clamps.
        properties: what it depends on.
        effects: of the numeric parameters.
        prompt_weights: weight of ``grad p`` at success probabilities `SUCCESSES`, groups of 4, relative to a prompt
            with p = 1/2 in the same batch.
        std_normalised: these are the weights of group normalisation, `klsim.objectives.std_weight`.
        pushes: of a loss that takes preference pairs only, what it does to the two responses.
        variance: variance of a single-batch gradient relative to the best unbiased estimator with a constant baseline;
            None unless the gradient is that of the reward alone.
        end: reward, KL to the reference, and distances to closed forms after exact training.
        expected: of ``expect``, world by world. fits: off-policy, against the expectation (else against what it
            descends on-policy).
        idle: parameters that had to act and do not. left_out: worlds in which the expectation was not held, because
            the caller named others. quick: effects and traits were left out.
    """

    target: str
    version: str
    setting: Setting
    found: Mapping[str, Combination]
    skipped: Mapping[str, str]
    off_policy_as_on: bool
    far_as_near: bool
    properties: Properties
    effects: tuple[effect.Effect, ...]
    prompt_weights: tuple[float, ...]
    std_normalised: bool
    pushes: tuple[Push, ...]
    variance: float | None
    end: Mapping[str, float]
    expectation: Expectation | None
    expected: tuple[Met, ...]
    fits: tuple[Fit, ...]
    idle: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    quick: bool = False
    verdict: str = ""

    def __repr__(self) -> str:
        return f"Audit({self.target!r}: {self.verdict})"

    def _brief(self) -> list[tuple[str, str]]:
        worlds = [(world, combination_text(c)) for world, c in self.found.items()]
        return [("target", self.target), *worlds, ("verdict", self.verdict)]

    @property
    def met(self) -> bool:
        """The expectation holds in every required world (true if there is none), and what had to act does."""
        return all(m.met for m in self.expected) and not self.idle

    @property
    def equal(self) -> Combination:
        """The gradient with equal lengths (with all lengths where only those were audited)."""
        return self.found.get("equal lengths", self.variable)

    @property
    def variable(self) -> Combination:
        """The gradient with variable lengths; of preference pairs where the loss takes nothing else."""
        return self.found["pairs"] if self.takes_pairs else self.found["lengths"]

    @property
    def takes_pairs(self) -> bool:
        """The loss takes preference pairs and nothing else."""
        return "lengths" not in self.found

    @property
    def off_policy(self) -> Combination | None:
        """The gradient with responses of another policy."""
        return self.found.get("off-policy")


def _gradients(loss: LossFunction, setting: Setting, expectation: Expectation | None, vocab: int | None) -> Gradients:
    """In the vocabulary that was asked for, that the expectation needs, or that the loss needs to run at all.

    Raises:
        Exception: the loss's own, if it runs with none.
    """
    if vocab is not None:
        return Gradients(loss, replace(setting, vocab=vocab))
    if expectation is not None and expectation.top:
        return Gradients(loss, replace(setting, vocab=max(5, expectation.top + 1)))
    errors: dict[str, Exception] = {}
    names = ("pairs",) if expectation is not None and expectation.about_pairs else ("lengths", "pairs")
    for name, chosen in [(n, setting) for n in names] + [("lengths", replace(setting, vocab=5))]:
        try:
            return Gradients(loss, chosen, {name: world(name, chosen).gradient(loss)})
        except Exception as error:
            errors.setdefault(name, error)
    first = errors[names[0]]
    raise errors.get("pairs", first) if "preferred" in str(first) else first


def _worlds(expectation: Expectation, setting: Setting, lengths: str) -> tuple[str, ...]:
    if expectation.about_pairs:
        return PREFERENCE
    if expectation.of_a_batch:
        return TOKEN_MEAN
    names = required_worlds(setting)
    return tuple(n for n in names if lengths != "variable" or n != "equal lengths")


def audit(
    target: Target | LossFunction,
    *,
    expect: str | None = None,
    lengths: str = "both",
    parameters: Mapping[str, float] | None = None,
    scale: Scale = "one",
    off_policy: str = "report",
    responses: str = "own",
    rewards: str = "all",
    vocab: int | None = None,
    terms: Mapping[str, Functional] | None = None,
    must_act: Sequence[str] = (),
    worlds: Sequence[str] | None = None,
    quick: bool = False,
) -> Audit:
    """Audit a loss in the worlds of `klsim.audit.worlds`.

    Args:
        target: a `Target`, or a function of a `TokenBatch` of torch tensors that returns the loss (or it and a dict);
            its further parameters with numeric defaults are what ``expect`` may name and what is varied.
        expect: the objective to ascend, e.g. ``"reward - beta*reverse_kl(frozen)"``, see `parse_expectation`.
        lengths: of the responses for which ``expect`` must hold: ``"equal"``, ``"variable"`` or ``"both"``.
        parameters: values of names in ``expect``; the target's own parameters are known.
        scale: ``"one"``: the gradient is exactly that of minus the expectation; ``"any"``: up to a positive factor in
            every world; ``"prompt"``: up to a positive factor of every prompt.
        off_policy: ``"report"`` cosine and residual, or hold ``"exact"``.
        responses: who writes them, ``"own"`` (the policy) or ``"teacher"``.
        rewards: ``"all"`` kinds, or ``"binary"`` ones only.
        vocab: of the trees; None: 2, or more where the expectation or the loss needs it.
        terms: own functionals that ``expect`` names. must_act: parameters without which the audit is not met.
        worlds: hold ``expect`` only in these; the verdict names those that were left out.
        quick: leave out effects, prompt weights, noise, training, and the worlds beyond those that ``expect`` needs.

    Raises:
        ValueError: a bad expectation or option; a loss that depends on the order of responses or whose gradient is not
            finite. TypeError: a loss that does not return a scalar tensor. And what the loss itself raises.
    """
    asked = _Asked(
        expect, lengths, parameters or {}, scale, off_policy, responses, rewards, vocab, terms, tuple(must_act),
        None if worlds is None else tuple(worlds), quick,
    )  # fmt: skip
    made = target if isinstance(target, Target) else from_function(getattr(target, "__name__", "loss"), target)
    with one_thread():
        result = _audit(made, asked)
    return replace(result, verdict=verdict(result))


@dataclass(frozen=True)
class _Asked:
    """The arguments of `audit`."""

    expect: str | None
    lengths: str
    parameters: Mapping[str, float]
    scale: Scale
    off_policy: str
    responses: str
    rewards: str
    vocab: int | None
    terms: Mapping[str, Functional] | None
    must_act: tuple[str, ...]
    worlds: tuple[str, ...] | None
    quick: bool

    def __post_init__(self) -> None:
        _validate.one_of("lengths", self.lengths, ("equal", "variable", "both"))
        _validate.one_of("scale", self.scale, ("one", "any", "prompt"))
        _validate.one_of("off_policy", self.off_policy, ("report", "exact"))
        _validate.one_of("rewards", self.rewards, ("all", "binary"))

    def expectation(self, target: Target) -> Expectation | None:
        """The parsed expectation; the target's own parameters are known to it."""
        unknown = set(self.must_act) - set(target.parameters)
        if unknown:
            known = ", ".join(target.parameters) or "none"
            raise ValueError(
                f"must_act: {target.name} has no numeric parameter {sorted(unknown)[0]!r} (known: {known})"
            )
        if self.expect is None:
            return None
        return parse_expectation(self.expect, {**target.parameters, **self.parameters}, self.terms)

    def worlds_for(self, expectation: Expectation | None, setting: Setting) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The worlds in which the expectation is held, and those in which the caller does not want it."""
        if expectation is None:
            return (), ()
        every = _worlds(expectation, setting, self.lengths)
        every += tuple(n for n in OFF_POLICY if n != "sampler") if self.off_policy == "exact" else ()
        left_out = tuple(n for n in every if self.worlds is not None and n not in self.worlds)
        if len(left_out) == len(every):
            raise ValueError(f"worlds: none of {self.worlds} is one in which {self.expect!r} has to hold ({every})")
        return tuple(n for n in every if n not in left_out), left_out


def _audit(target: Target, asked: _Asked) -> Audit:
    expectation = asked.expectation(target)
    loss = target.loss()
    setting = Setting(asked.lengths == "equal", writer=asked.responses, binary=asked.rewards == "binary")
    gradients = _gradients(loss, setting, expectation, asked.vocab)
    pairs = gradients("lengths") is None
    found = _found(gradients, ("pairs",) if pairs else ("lengths",) if asked.quick else IDENTIFIED, target.parameters)
    variable = found["pairs" if pairs else "lengths"]
    near = found.get("equal lengths", variable)
    depends = properties(loss, gradients.setting, pairs=pairs)
    holding, left_out = asked.worlds_for(expectation, gradients.setting)
    mixes = depends.coupling if asked.scale == "prompt" and depends.coupling in (REWARDS, OTHERS) else ""
    where = "" if variable.exact or not near.exact or gradients.setting.equal else EQUAL
    descended = near if where else variable if variable.exact else near
    whole = not (asked.quick or pairs)
    varied = effect.effects(target, gradients) if not asked.quick or asked.must_act else ()
    weights, normalised = traits.prompt_weights(loss) if whole else ((), False)
    against = expectation or (_descended(descended) if descended.exact else None)
    fitted = against is not None and not pairs and (not asked.quick or asked.off_policy == "exact")
    return Audit(
        target=target.name,
        version=target.version,
        setting=gradients.setting,
        found=found,
        skipped=gradients.skipped,
        off_policy_as_on=not (pairs or asked.quick) and _as(gradients, f"off-policy{where}", descended),
        far_as_near=_as(gradients, "pairs, far" if pairs else f"far{where}", descended),
        properties=depends,
        effects=varied,
        prompt_weights=weights,
        std_normalised=normalised,
        pushes=pushes(loss) if pairs and not asked.quick else (),
        variance=traits.variance(loss, found["equal lengths"]) if whole and "equal lengths" in found else None,
        end=traits.end(variable) if whole else {},
        expectation=expectation,
        expected=() if expectation is None else hold(gradients, expectation, holding, asked.scale, mixes),
        fits=fits(gradients, against, "" if expectation else where) if fitted and against is not None else (),
        idle=tuple(e.parameter for e in varied if e.parameter in asked.must_act and not e.acts),
        left_out=left_out,
        quick=asked.quick,
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Thousands of tiny tensors: threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _found(gradients: Gradients, names: Sequence[str], parameters: Mapping[str, float]) -> dict[str, Combination]:
    """The gradient in some worlds as combinations."""
    setting = gradients.setting
    if setting.equal or setting.vocab > 2:
        names = [n for n in names if n != "equal lengths" and not (setting.vocab > 2 and n == "large batch")]
    beta = parameters.get("beta", 0.0)
    return {n: identify(g, n, setting, beta) for n in names if (g := gradients(n)) is not None}


def _as(gradients: Gradients, name: str, combination: Combination) -> bool:
    """Whether a combination is also the gradient in another world."""
    gradient = gradients(name)
    return gradient is not None and is_combination(gradient, combination, world(name, gradients.setting))


def _descended(found: Combination) -> Expectation:
    """What a loss descends on-policy, as an expectation."""
    return Expectation("what it descends on-policy", {n: -c for n, c in found.coefficients.items()})


def as_json(a: Audit) -> dict[str, Any]:
    """The audit as JSON values."""
    plain = {k: v for k, v in asdict(replace(a, expectation=None)).items() if k != "expectation"}
    text = None if a.expectation is None else {"text": a.expectation.text, "coefficients": a.expectation.coefficients}
    return {**plain, "expectation": text, "met": a.met}
