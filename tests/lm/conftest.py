"""Small worlds for the tests of the bridge."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
torch.set_num_threads(1)

from klsim.lm import logit_chunks  # noqa: E402 - once torch is known to be there


@pytest.fixture
def small() -> dict:
    """A configuration that trains in a second or two."""
    domain = {"kind": "modular", "terms": 2, "chain": False}
    return {
        "output": "run",
        "model": {"hidden": 16, "layers": 1, "heads": 2},
        "train_prompts": 40,
        "evaluation": {"prompts": 8, "samples": 4},
        "tasks": {"add": domain, "mul": domain | {"operations": "*"}},
        "stage": [{"name": "base", "method": "sft", "steps": 8, "log_steps": 2, "save_steps": 4, "batch": 8}],
    }


@pytest.fixture
def run_cut_at_rl(monkeypatch):
    """Train, and be interrupted once the stage ``rl`` is trained and not evaluated yet; then nothing is in the way."""
    from klsim.lm import train

    evaluate = train._evaluate

    def stop(config, stage, *rest):
        if stage.name == "rl":
            raise KeyboardInterrupt
        evaluate(config, stage, *rest)

    def run(config):
        with monkeypatch.context() as patch:
            patch.setattr(train, "_evaluate", stop)
            with pytest.raises(KeyboardInterrupt):
                train.run(config)

    return run


@pytest.fixture
def wide(monkeypatch):
    """The branch of CUDA: products of bfloat16 that come out in float32, as torch documents them."""

    plain_mm, plain_addmm = torch.mm, torch.addmm

    def mm(a, b, out_dtype, *, out=None):
        assert a.dtype == b.dtype == torch.bfloat16
        product = plain_mm(a.to(out_dtype), b.to(out_dtype))
        return product if out is None else out.copy_(product)

    def addmm(x, a, b, out_dtype=None, *, beta=1, alpha=1, out):
        if out_dtype is None:
            return plain_addmm(x, a, b, beta=beta, alpha=alpha, out=out)
        assert out is x
        assert x.dtype == out_dtype
        product = alpha * mm(a, b, out_dtype)
        return out.copy_(product if beta == 0 else beta * x + product)

    monkeypatch.setattr(logit_chunks, "_wide_product", lambda h, w, dtype: h.dtype == w.dtype == torch.bfloat16)
    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(torch, "addmm", addmm)
