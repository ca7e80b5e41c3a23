r"""TRL's `GRPOTrainer` with a klsim objective in the place of its loss, and teachers.

TRL and accelerate sample the completions, score them and take the steps (several processes, FSDP, DeepSpeed and vLLM
come from there). What is added: the batch as a `klsim.objectives.TokenBatch` (log-probabilities under the policy, the
reference and the teachers), the objective, whole groups in every micro-batch, checks that no NaN becomes a step, and
checkpoints that appear only when they are complete.

Objectives over the whole vocabulary (`klsim.objectives.g_opd_full`, `gkd`, `divergence`) go through
`klsim.lm.vocab_losses` in chunks in a single process, where the logits are nothing but a head on the backbone's states;
elsewhere all logits are held. The loss is the same.

With gradient accumulation the loss is the mean of those of the micro-batches: baselines and scales of a *batch*
(`klsim.objectives.reinforce_pp`) are those of a process's micro-batch, as are the token counts of
`klsim.objectives.token_mean`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTTrainer
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from klsim.learning.tree_batches import with_metrics
from klsim.lm.adapters import adapter_off
from klsim.lm.chat import rendered
from klsim.lm.chunked import chunked, token_weights
from klsim.lm.guarded import Guarded, quiet
from klsim.lm.lengths import LengthSampler, by_epoch
from klsim.lm.log_probs import backbone, has_plain_head
from klsim.lm.objectives import LossFunction, needs
from klsim.lm.vocab_losses import LinearHead
from klsim.objectives import TokenBatch

__all__ = ["ObjectiveTrainer", "SupervisedTrainer", "checked_reward", "quiet"]

Reward = Callable[..., Sequence[float]]

_OF_TRLS_LOSS = (
    "beta", "delta", "entropy_coef", "epsilon", "epsilon_high", "importance_sampling_level", "loss_type",
    "multi_objective_aggregation", "off_policy_mask_threshold", "sapo_temperature_neg", "sapo_temperature_pos",
    "scale_rewards", "sync_ref_model", "top_entropy_quantile", "use_adaptive_entropy", "use_bias_correction_kl",
    "use_liger_kernel", "vespo_k_neg", "vespo_k_pos", "vespo_lambda_neg", "vespo_lambda_pos",
)  # fmt: skip


def checked_reward(reward: Reward) -> Reward:
    """The reward function, whose values must be finite numbers, one a completion.

    Raises:
        ValueError: (when called) too few or too many, or a value that is not a finite number: its place and completion.
    """

    @functools.wraps(reward)
    def checked(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        name = getattr(reward, "__name__", type(reward).__name__)
        values = list(reward(prompts=prompts, completions=completions, **columns))
        if len(values) != len(completions):
            raise ValueError(f"reward {name!r}: gave {len(values)} values for {len(completions)} completions")
        for i, value in enumerate(values):
            number = math.nan
            with suppress(TypeError, ValueError):
                number = float(value) if not isinstance(value, str | bytes) else math.nan
            if not math.isfinite(number):
                raise ValueError(f"reward {name!r}[{i}] = {value!r}: must be a finite number (of {completions[i]!r})")
        return [float(value) for value in values]

    return checked


class SupervisedTrainer(Guarded, SFTTrainer):  # type: ignore[misc]
    """TRL's `SFTTrainer`; a gradient that is not finite is an error, checkpoints are complete, and ``num_tokens`` goes
    on where a resumed run was stopped (TRL's begins at 0 again)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_TokensSeen(self))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return by_epoch(super()._get_train_sampler(dataset), self.args.seed)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.state.num_input_tokens_seen = self._total_train_tokens
        super()._save_checkpoint(model, trial)


class _TokensSeen(TrainerCallback):
    """Hands the tokens of a checkpoint's state to the trainer that counts them."""

    def __init__(self, trainer: SupervisedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._total_train_tokens = int(state.num_input_tokens_seen)


class ObjectiveTrainer(Guarded, GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` for an objective of `klsim.objectives`.

    Args:
        model: a causal LM, or its path. args: a `trl.GRPOConfig`; its loss options (``loss_type``, ``beta``,
            ``scale_rewards``, ``epsilon`` …) are not used, they belong to the objective. Everything else is TRL's.
        objective: ``TokenBatch -> loss`` or ``(loss, metrics)``: your own function, or what `klsim.lm.objectives.named`
            gives..
        ref_model: the reference; needed by objectives that ask for it. It and the teachers are frozen in place. Without
            one a model with peft's adapters is its own, with them switched off.
        teachers: one a domain: the data set's column ``domain`` says which teacher a prompt has. With one teacher no
            column is needed.
        by_length: batches hold prompts of similar lengths, `klsim.lm.lengths.LengthSampler`.
        reward_funcs, train_dataset, processing_class, …: as `GRPOTrainer`'s.

    Raises:
        ValueError: the objective needs a reference, a teacher or rewards that are not given; groups that do not fit
            into ``per_device_train_batch_size``; an option that only acts in TRL's own loss.
    """

    def __init__(
        self,
        model: Any,
        *,
        objective: LossFunction,
        args: GRPOConfig,
        ref_model: PreTrainedModel | None = None,
        teachers: Mapping[str, PreTrainedModel] | None = None,
        reward_funcs: Sequence[Reward] = (),
        by_length: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
        **kwargs: Any,
    ) -> None:
        self.objective, self.by_length = objective, by_length
        self.needed = needs(objective)
        self.teachers = dict(teachers or {})
        self.given_ref = ref_model
        self._check(args, reward_funcs, own_ref=is_peft_model(model))
        if any(law is model for law in (ref_model, *self.teachers.values())):
            raise ValueError("ref_model, teachers: the policy itself is one of them; they are frozen, give a copy")
        super().__init__(
            model=model,
            args=args,
            reward_funcs=[checked_reward(f) for f in reward_funcs] or [_no_reward],
            callbacks=callbacks,
            **kwargs,
        )
        # what wraps the model (DDP, shards) must see every use of the head's weights inside its own forward
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        self.chunked = chunked(objective) if self.accelerator.num_processes == 1 and not sharded else None
        if self.chunked is not None:
            laws = [self.model, *self.teachers.values(), *([] if self.given_ref is None else [self.given_ref])]
            if all(has_plain_head(law) for law in laws):
                for law in {id(law): law for law in laws}.values():
                    _add_states(law)
            else:
                self.chunked = None
        if self.given_ref is not None:
            self.given_ref = self._prepare(self.given_ref)
        prepared = {id(teacher): self._prepare(teacher) for teacher in self.teachers.values()}
        self.teachers = {name: prepared[id(teacher)] for name, teacher in self.teachers.items()}

    def _wants(self, law: str) -> bool:
        return any(name.startswith(f"{law}_") for name in self.needed)

    def _check(self, args: GRPOConfig, reward_funcs: Sequence[Reward], *, own_ref: bool) -> None:
        if self._wants("ref") and self.given_ref is None and not own_ref:
            raise ValueError("ref_model: this objective needs a reference")
        if self._wants("teacher") and not self.teachers:
            raise ValueError("teachers: this objective needs a teacher")
        if "rewards" in self.needed and not reward_funcs:
            raise ValueError("reward_funcs: this objective needs rewards")
        if args.per_device_train_batch_size % args.num_generations:
            raise ValueError(
                f"args.per_device_train_batch_size = {args.per_device_train_batch_size}: must be a multiple of "
                f"num_generations = {args.num_generations}, so that groups stay together"
            )
        for field in dataclasses.fields(args):
            if field.name in _OF_TRLS_LOSS and getattr(args, field.name) != field.default:
                value = getattr(args, field.name)
                raise ValueError(f"args.{field.name} = {value!r}: acts in TRL's own loss only; set it in the objective")
        if args.use_vllm and args.vllm_importance_sampling_correction:
            raise ValueError("args.vllm_importance_sampling_correction: set it to False; objectives do not take it")
        if args.mask_truncated_completions:
            raise ValueError("args.mask_truncated_completions: no objective takes a response without a token")
        accumulated = args.gradient_accumulation_steps
        generation = math.lcm(args.steps_per_generation * args.num_iterations, accumulated) // accumulated
        if args.save_strategy == "steps" and args.save_steps % generation:
            raise ValueError(
                f"args.save_steps = {args.save_steps}: must be a multiple of the {generation} steps on one set of "
                "completions, so that a run resumes exactly"
            )

    def _prepare(self, model: PreTrainedModel) -> Any:
        """A frozen model on this process's device, with TRL's fused head."""
        model.requires_grad_(False)
        add_fused_lm_head(model, temperature=self.temperature, cast_lm_head_to_fp32=self.args.cast_lm_head_to_fp32)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(model, self.accelerator)
        if self.is_fsdp_enabled:
            return prepare_fsdp(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    @contextmanager
    def _reference(self, model: Any) -> Iterator[Any]:
        """The reference: a model of its own, or the policy without its adapters."""
        if self.given_ref is not None:
            yield self.given_ref
        else:
            with adapter_off(self.accelerator.unwrap_model(model)):
                yield model

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        if not self.by_length:
            return by_epoch(sampler, self.args.seed)
        prompts = sampler.data_source["prompt"]
        near = LengthSampler(
            [len(text) for text in rendered(self.processing_class, list(prompts))],
            mini_repeat_count=sampler.mini_repeat_count, batch_size=sampler.batch_size,
            repeat_count=sampler.repeat_count, seed=sampler.seed,
        )  # fmt: skip
        return by_epoch(near, self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns.append("domain")

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args)
        self._last_rewards = (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)
        return rewards

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._generate_single_turn(*args, **kwargs)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            step = self.state.global_step + 1
            raise ValueError(f"step {step}: the model's next-token probabilities are NaN while sampling") from error

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        device, count = self.accelerator.device, len(inputs)
        start = self.accelerator.process_index * count
        per_prompt = self.num_generations if self.model.training else self.num_generations_eval
        output["rewards"] = self._last_rewards[start : start + count]
        output["group"] = torch.arange(start, start + count, device=device) // per_prompt
        if self._wants("teacher"):
            output["domain"] = torch.tensor([self._domain(row) for row in inputs], device=device)
        return output

    def _domain(self, row: Mapping[str, Any]) -> int:
        """The index of a prompt's teacher."""
        names = list(self.teachers)
        if len(names) == 1 and "domain" not in row:
            return 0
        if row.get("domain") not in self.teachers:
            known = ", ".join(map(repr, names))
            raise ValueError(f"domain {row.get('domain')!r} of prompt {row['prompt']!r}: no such teacher ({known})")
        return names.index(row["domain"])

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        # GRPOTrainer shuffles completions before it splits them into micro-batches; an objective needs whole groups.
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        self._buffered_inputs: Any
        per_generation = self.args.steps_per_generation
        if self._step % (per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, per_generation)
        return self._buffered_inputs[self._step % per_generation]

    def _laws(self, model: Any, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Log-probabilities ``[B, T]`` (and ``[B, T, V]`` if asked for) under policy, reference and teacher."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        length = inputs["completion_ids"].shape[1]
        out: dict[str, torch.Tensor] = {}

        def read(law: Any, prefix: str, rows: torch.Tensor | slice = slice(None), entropy: bool = False) -> None:
            values, spread, _ = self._get_per_token_logps_and_entropies(
                law, ids[rows], attention[rows], length, compute_entropy=entropy
            )
            _place(out, f"{prefix}log_probs", values, rows, len(ids))
            if spread is not None:
                out["entropy"] = spread.detach()
            if f"{prefix}vocab_log_probs" in self.needed and self.chunked is None:
                logits = law(input_ids=ids[rows], attention_mask=attention[rows], logits_to_keep=length + 1).logits
                scaled = torch.log_softmax(logits[:, :-1].float() / self.temperature, dim=-1)
                _place(out, f"{prefix}vocab_log_probs", scaled, rows, len(ids))

        read(model, "", entropy=True)
        with torch.no_grad():
            if self._wants("ref"):
                with self._reference(model) as ref:
                    read(ref, "ref_")
            if self._wants("teacher"):
                for i, teacher in enumerate(self.teachers.values()):
                    rows = torch.nonzero(inputs["domain"] == i)[:, 0]
                    if len(rows):
                        read(teacher, "teacher_", rows)
        return out

    def _head(self, law: Any, inputs: Mapping[str, Any], rows: torch.Tensor) -> LinearHead:
        """States before the completion tokens that ``rows [B, T]`` chooses, and the head on them."""
        some = torch.nonzero(rows.any(dim=1))[:, 0]
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)[some]
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)[some]
        states = law(input_ids=ids, attention_mask=attention, states_only=True)
        output = self.accelerator.unwrap_model(law).get_output_embeddings()
        return LinearHead(states[:, -rows.shape[1] - 1 : -1][rows[some]], output.weight, output.bias)

    def _chunked_loss(self, model: Any, inputs: Mapping[str, Any], mask: torch.Tensor) -> torch.Tensor:
        """The objective, never holding ``[B, T, V]``: one call a teacher."""
        assert self.chunked is not None
        weights = token_weights(self.chunked.aggregate, mask, torch.float32)
        teachers = list(self.teachers.values()) if "teacher" in self.chunked.laws else [None]
        total = torch.zeros((), device=mask.device)
        for i, teacher in enumerate(teachers):
            rows = mask if teacher is None else mask & (inputs["domain"] == i)[:, None]
            if not bool(rows.any()):
                continue
            student = self._head(model, inputs, rows)
            with torch.no_grad():
                others = {}
                if "teacher" in self.chunked.laws:
                    others["teacher"] = self._head(teacher, inputs, rows)
                if "ref" in self.chunked.laws:
                    with self._reference(model) as ref:
                        others["ref"] = self._head(ref, inputs, rows)
            total = total + self.chunked.loss(student, others, weights[rows], self.temperature)
        return total

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        if self.chunked is not None:
            return self._compute_chunked(model, inputs)
        laws = self._laws(model, inputs)
        entropy = laws.pop("entropy")
        batch = TokenBatch(
            mask=_mask(inputs),
            tokens=inputs["completion_ids"],
            old_log_probs=inputs.get("old_per_token_logps"),
            rewards=inputs["rewards"].to(laws["log_probs"].dtype) if "rewards" in self.needed else None,
            group=inputs["group"],
            **laws,
        )
        loss, metrics = with_metrics(self.objective(batch))
        return self._logged(loss, {**metrics, **_divergences(laws, entropy, batch.weights)})

    def _compute_chunked(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        mask = _mask(inputs)
        loss = self._chunked_loss(model, inputs, mask)
        metrics: dict[str, torch.Tensor] = {}
        if (self.state.global_step + 1) % max(int(self.args.logging_steps), 1) == 0:  # they cost a pass of every model
            with torch.no_grad():
                laws = self._laws(model, inputs)
            metrics = _divergences(laws, laws.pop("entropy"), mask.to(torch.float32))
        return self._logged(loss, metrics)

    def _logged(self, loss: torch.Tensor, metrics: Mapping[str, Any]) -> torch.Tensor:
        """The loss of a micro-batch, as its share of the step."""
        mode = "train" if self.model.training else "eval"
        for name, value in {"objective": loss.detach(), **metrics}.items():
            value = torch.as_tensor(value, dtype=torch.float32, device=loss.device)
            self._metrics[mode][name].append(self.accelerator.gather(value).mean().item())
        steps = self.current_gradient_accumulation_steps if mode == "train" else 1
        return loss / steps


def _mask(inputs: Mapping[str, Any]) -> torch.Tensor:
    mask: torch.Tensor = inputs["completion_mask"].bool()
    return mask & inputs["tool_mask"].bool() if "tool_mask" in inputs else mask


def _divergences(laws: Mapping[str, torch.Tensor], entropy: torch.Tensor, weights: torch.Tensor) -> dict[str, Any]:
    """Entropy, nats a token; KL to the reference and the teacher by k1, nats a completion."""
    out = {"entropy": (entropy * weights).sum() / weights.sum()}
    for law in ("ref", "teacher"):
        if (other := laws.get(f"{law}_log_probs")) is not None:
            gap = (laws["log_probs"].detach() - other) * weights
            out[f"kl_to_{law}"] = gap.sum(dim=1).mean()
    return out


def _add_states(model: Any) -> None:
    """``model(…, states_only=True)`` returns the backbone's last hidden states, through any wrapper of the model."""
    original = model.forward

    @functools.wraps(type(model).forward)  # generate looks at the signature
    def forward(*args: Any, states_only: bool = False, **kwargs: Any) -> Any:
        if not states_only:
            return original(*args, **kwargs)
        return backbone(model)(*args, use_cache=False, **kwargs).last_hidden_state

    model.forward = forward


def _place(out: dict[str, torch.Tensor], name: str, values: torch.Tensor, rows: Any, count: int) -> None:
    """Set ``rows`` of an array of ``count`` rows."""
    if isinstance(rows, slice):
        out[name] = values
        return
    if name not in out:
        out[name] = values.new_zeros(count, *values.shape[1:])
    out[name][rows] = values


def _no_reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """TRL wants a reward function; objectives without rewards ignore it."""
    return [0.0] * len(completions)
