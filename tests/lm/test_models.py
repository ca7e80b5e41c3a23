"""Tokenizers and small models: exact round trips, deterministic weights, clear errors, checkpoints whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from klsim.lm import models  # noqa: E402

ALPHABET = "0123456789+-*/()%=;:, &!ABC\\{}\n\t'st"
TOKENIZER = models.character_tokenizer(ALPHABET)


@pytest.fixture(params=sorted(models.ARCHITECTURES))
def checkpoint(request, tmp_path):
    """A saved model, its tokenizer and their folder."""
    model = models.tiny_model(TOKENIZER, architecture=request.param, hidden=16, layers=2, heads=2, seed=1)
    models.save_checkpoint(model, TOKENIZER, tmp_path / "saved")
    return model, tmp_path / "saved"


# --- tokenizers


@given(st.text(ALPHABET, max_size=30))
def test_tokens_are_characters_and_round_trip(text):
    ids = TOKENIZER.encode(text)
    assert len(ids) == len(text)
    assert ids == [3 + ALPHABET.index(c) for c in text]
    assert TOKENIZER.decode(ids) == text


def test_special_tokens_come_first():
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert len(TOKENIZER) == 3 + len(ALPHABET)
    assert TOKENIZER.encode("1" + TOKENIZER.eos_token) == [4, 2]


def test_pads_go_to_the_left():
    batch = TOKENIZER(["1", "234"], padding=True)
    assert batch["input_ids"] == [[0, 0, 4], [5, 6, 7]]
    assert batch["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("load", [models.load_tokenizer, transformers.AutoTokenizer.from_pretrained])
def test_a_loaded_tokenizer_is_the_saved_one(checkpoint, load):
    loaded = load(checkpoint[1])
    models.check_same_vocabulary(TOKENIZER, loaded)
    assert len(loaded) == len(TOKENIZER)
    assert loaded.padding_side == "left"
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    for text in ["1  + 2 ", " ", "  ", "A's\n\n\t ", "!A!B & C", "", ALPHABET]:
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("", "alphabet = '': must be a string of at least one character"),
        (["a"], "alphabet = ['a']: must be a string of at least one character"),
        ("aba", "alphabet[2] = 'a': occurs twice"),
        ("aé", "alphabet[1] = 'é': must be ASCII"),
    ],
)
def test_alphabets_that_are_none(alphabet, message):
    with pytest.raises(ValueError) as error:
        models.character_tokenizer(alphabet)
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["1x", "é", "1 2"])
def test_unknown_characters_are_found(text):
    tokenizer = models.character_tokenizer("12")
    models.check_characters(tokenizer, ["1", "12", ""])
    with pytest.raises(ValueError) as error:
        models.check_characters(tokenizer, ["1", text], "prompts")
    assert str(error.value) == f"prompts[1] = {text!r}: has characters that the tokenizer has no token for"


def test_vocabularies_that_differ_are_refused():
    make = models.character_tokenizer
    models.check_same_vocabulary(make("abc"), make("abc"))
    for student, teacher, message in [
        ("abc", "acb", "token 4 is 'b' in the student's and 'c' in the teacher's"),
        ("abc", "ab", "token 5 is 'c' in the student's and nothing in the teacher's"),
        ("ab", "abc", "token 5 is nothing in the student's and 'c' in the teacher's"),
    ]:
        with pytest.raises(ValueError) as error:
            models.check_same_vocabulary(make(student), make(teacher))
        assert str(error.value) == f"vocabularies differ: {message}"


# --- small models


@pytest.mark.parametrize("architecture", sorted(models.ARCHITECTURES))
def test_weights_follow_from_the_seed_and_nothing_else(architecture):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = models.tiny_model(TOKENIZER, architecture=architecture, hidden=16, layers=1, heads=2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two = models.tiny_model(TOKENIZER, architecture=architecture, hidden=16, layers=1, heads=2, seed=3)
    other = models.tiny_model(TOKENIZER, architecture=architecture, hidden=16, layers=1, heads=2, seed=4)
    assert same_weights(one, two)
    assert not same_weights(one, other)
    assert one.config.model_type == architecture
    assert not one.training
    assert one.dtype == torch.float32


def same_weights(one, two):
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"architecture": "gpt2"}, "architecture = 'gpt2': must be one of 'qwen2', 'llama'"),
        ({"hidden": 20, "heads": 4}, "hidden = 20: must be a multiple of 2 heads = 8"),
        ({"layers": 0}, "layers = 0: must be >= 1"),
        ({"heads": 0}, "heads = 0: must be >= 1"),
        ({"hidden": 16.0}, "hidden = 16.0: must be an integer"),
        ({"seed": -1}, "seed = -1: must be >= 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises((ValueError, TypeError)) as error:
        models.tiny_model(TOKENIZER, **sizes)
    assert str(error.value) == message


# --- checkpoints


def test_a_loaded_model_is_the_saved_one(checkpoint):
    model, folder = checkpoint
    assert same_weights(models.load_model(folder), model)
    assert same_weights(models.load_model(str(folder)), model)
    assert models.load_model(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert not list(folder.glob("*.bin"))


def test_names_of_nothing(tmp_path):
    for source in (tmp_path / "none", str(tmp_path / "none"), "./none", "a/b/c", ""):
        for load in (models.load_model, models.load_tokenizer):
            with pytest.raises(FileNotFoundError) as error:
                load(source)
            assert str(error.value) == f"{source}: is neither a folder nor the name of a model on the Hub"


def test_a_hub_name_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (models.load_model, models.load_tokenizer):
        with pytest.raises(
            OSError, match=r"^nobody/no-such-model: is neither a folder nor a model that can be had"
        ) as error:
            load("nobody/no-such-model")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\xff" * 8 + d[8:]])
def test_a_broken_weight_file_is_named(checkpoint, damage):
    file = checkpoint[1] / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="is cut off or no safetensors file") as error:
        models.load_model(checkpoint[1])
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def change_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    config.pop("layer_types", None)  # of every layer, where an architecture has it
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, "its weight files lack model.layers.2."),
        ({"vocab_size": 50}, "its weight files have another shape for lm_head.weight and 1 more"),
    ],
)
def test_weights_that_are_not_there_are_no_random_numbers(checkpoint, changes, message, capfd):
    change_config(checkpoint[1], **changes)
    with pytest.raises(ValueError) as error:
        models.load_model(checkpoint[1])
    assert str(error.value).startswith(f"{checkpoint[1]}: {message}")
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_not_asked_for_are_a_warning(checkpoint):
    change_config(checkpoint[1], num_hidden_layers=1)
    with pytest.warns(UserWarning, match=r"does not ask for are ignored: model\.layers\.1\."):
        models.load_model(checkpoint[1])


def test_pickled_weights_are_not_read(checkpoint):
    model, folder = checkpoint
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as error:
        models.load_model(folder)
    assert str(error.value) == f"{folder}: is no checkpoint, it has no *.safetensors file"


def test_folders_that_are_no_checkpoint(checkpoint):
    folder = checkpoint[1]
    (folder / "config.json").write_text('{"model_type":')
    with pytest.raises(OSError, match=r"cannot be loaded .*config\.json"):
        models.load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint, it has no config\.json"):
        models.load_model(folder)
    (folder / "tokenizer.json").write_text('{"version"')
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        models.load_tokenizer(folder)
    assert "\n" not in str(error.value)


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("writer", ["model", "tokenizer"])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_write_that_is_cut_off_leaves_what_was_there(monkeypatch, tmp_path, writer, there_before):
    old, new = (models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2, seed=seed) for seed in (0, 1))
    folder = tmp_path / "model"
    if there_before:
        models.save_checkpoint(old, TOKENIZER, folder)
    kind = type(new) if writer == "model" else type(TOKENIZER)
    write = kind.save_pretrained

    def cut_off(self, place, *args, **kwargs):
        write(self, place, *args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kind, "save_pretrained", cut_off)
        with pytest.raises(Killed):
            models.save_checkpoint(new, TOKENIZER, folder)
    assert folder.exists() == there_before
    assert [p.name for p in tmp_path.iterdir()] == (["model"] if there_before else [])
    if there_before:
        assert same_weights(models.load_model(folder), old)
    models.save_checkpoint(new, TOKENIZER, folder)
    assert same_weights(models.load_model(folder), new)


def test_a_rename_that_fails_puts_the_old_checkpoint_back(monkeypatch, tmp_path):
    old, new = (models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2, seed=seed) for seed in (0, 1))
    folder = tmp_path / "model"
    models.save_checkpoint(old, TOKENIZER, folder)
    rename = type(folder).rename

    def refuse_the_new_one(self, target):
        if self.name == "new":
            raise OSError("no space left")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", refuse_the_new_one)
        with pytest.raises(OSError, match="no space left"):
            models.save_checkpoint(new, TOKENIZER, folder)
    assert same_weights(models.load_model(folder), old)


def test_what_a_killed_process_left_of_a_checkpoint_is_removed_or_put_back(tmp_path):
    old, new = (models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2, seed=seed) for seed in (0, 1))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    part = tmp_path / f".model.{ended.pid}.x.part"
    models.save_checkpoint(old, TOKENIZER, part / "old")  # it was killed between its two renamings
    (part / "new").mkdir()
    with pytest.raises(FileExistsError):
        models.save_checkpoint(new, TOKENIZER, part)  # control: such a folder is no checkpoint
    models.save_checkpoint(new, TOKENIZER, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert same_weights(models.load_model(tmp_path / "model"), new)


def test_only_checkpoints_and_empty_folders_are_replaced(tmp_path):
    model = models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2)
    (tmp_path / "file").write_text("x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("x")
    for name in ("file", "notes"):
        with pytest.raises(FileExistsError) as error:
            models.save_checkpoint(model, TOKENIZER, tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: exists and is no checkpoint; it is not overwritten"
    assert (tmp_path / "notes" / "thesis.tex").read_text() == "x"
    (tmp_path / "empty").mkdir()
    models.save_checkpoint(model, TOKENIZER, tmp_path / "empty")
    models.save_checkpoint(model, TOKENIZER, tmp_path / "deep" / "er")
    assert same_weights(models.load_model(tmp_path / "empty"), models.load_model(tmp_path / "deep" / "er"))
