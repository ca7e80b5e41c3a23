"""The command on the completions that TRL's own trainer logs in a real, tiny run."""

import json

import pytest
from typer.testing import CliRunner

from klsim.cli import app

pytest.importorskip("torch")
trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")

LETTERS = "abcdefgh "


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {"<pad>": 0, "<eos>": 1} | {letter: i + 2 for i, letter in enumerate(LETTERS)}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def share_of_a(completions, **_):
    return [text.count("a") / max(len(text), 1) for text in completions]


@pytest.mark.filterwarnings("ignore")  # the trainer's own
def test_the_frontier_of_a_logged_run(tmp_path):
    from datasets import Dataset

    words = tokenizer()
    transformers.set_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(LETTERS) + 2, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=96, num_generations=16, max_completion_length=6,
        max_steps=2, learning_rate=1e-2, logging_steps=1, log_completions=True, report_to=[], save_strategy="no",
        use_cpu=True, bf16=False, seed=0, disable_tqdm=True,
    )  # fmt: skip
    trl.GRPOTrainer(
        model=transformers.Qwen2ForCausalLM(config),
        reward_funcs=share_of_a,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [f"{x}{y}" for x in "abcdef" for y in "gh"]}),
        processing_class=words,
    ).train()
    logs = tmp_path / "completions"
    assert len(list(logs.glob("*.parquet"))) == 2
    runner = CliRunner()
    mixed = runner.invoke(app, ["frontier", str(logs)])
    assert mixed.exit_code == 2
    assert "--where step=1" in mixed.output
    done = runner.invoke(app, ["frontier", str(logs), "--where", "step=1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["prompts"] == 6
    assert found["samples_a_prompt"] == [16, 16]
    assert found["points"][0]["reward"]["value"] > found["reference"]["value"]
    assert any("share_of_a" in note for note in found["notes"])
