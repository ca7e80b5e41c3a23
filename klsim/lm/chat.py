"""Prompts and completions as text or as chat messages, in TRL's convention.

A *plain* prompt is text, its completion too. A *conversational* prompt is a list of messages ``{"role": …, "content":
…}``; the tokenizer's chat template renders it, with what opens the assistant's turn behind it, and its completion is a
list of one assistant message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["as_completion", "as_prompt", "completion_text", "is_chat", "problem_of_prompt", "rendered"]

Messages = list[dict[str, Any]]


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of messages."""
    return isinstance(prompt, list | tuple)


def as_prompt(text: str, system: str | None = None) -> Messages:
    """Text as the user's message, behind the system's."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": text}]


def as_completion(prompt: Any, text: str) -> str | Messages:
    """A completion in the form of its prompt: text, or one assistant message."""
    return [{"role": "assistant", "content": text}] if is_chat(prompt) else text


def problem_of_prompt(prompt: Any) -> str | None:
    """What is wrong with a prompt, in words; None if nothing is."""
    if isinstance(prompt, str):
        return _problem_of_text(prompt) if prompt else "must not be empty"
    if not isinstance(prompt, list | tuple):
        return f"must be text or a list of messages, got {type(prompt).__name__}"
    if not prompt:
        return "must have at least one message"
    for i, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"message {i + 1} must be an object with role and content, got {message!r:.80}"
        if not isinstance(message.get("content"), str):
            return f"message {i + 1} must have text content, got {message.get('content')!r:.80}"
        if problem := _problem_of_text(message["role"] + message["content"]):
            return f"message {i + 1} {problem}"
    if prompt[-1]["role"] == "assistant":
        return "ends with the assistant's answer; a prompt ends before it"
    return None


def _problem_of_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half a surrogate pair, which no file can hold"
    return None


def rendered(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> list[str]:
    """Prompts as the text that the model reads: messages through the chat template; plain ones as they are, behind the
    token that the tokenizer puts before every text, if there is one. It is tokenised without further special tokens.

    Raises:
        ValueError: a tokenizer without a chat template, a template that refuses the messages, or both kinds of prompts.
    """
    kinds = {is_chat(prompt) for prompt in prompts}
    if len(kinds) > 1:
        raise ValueError("prompts: some are text and some are messages; a model is given one kind")
    if kinds != {True}:
        ids = tokenizer("a")["input_ids"]
        first = str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""
        return [first + prompt for prompt in prompts]
    if not tokenizer.chat_template:
        raise ValueError("prompts: they are messages, and the tokenizer has no chat template; use plain prompts")
    out = []
    for i, prompt in enumerate(prompts):
        try:
            out.append(str(tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)))
        except Exception as error:  # what a template raises is jinja2's, or any Python error inside it
            raise ValueError(f"prompts[{i}]: the chat template refuses it ({error})") from error
    return out


def completion_text(completion: Any, index: int = 0) -> str:
    """The text of a completion: a string, or a conversation of one assistant message.

    Raises:
        ValueError: anything else, naming ``completions[index]``.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list | tuple) and len(completion) == 1 and isinstance(completion[0], Mapping):
        message = completion[0]
        if message.get("role") == "assistant" and isinstance(message.get("content"), str):
            return str(message["content"])
    raise ValueError(f"completions[{index}]: must be a string or a list of one assistant message with text content")
