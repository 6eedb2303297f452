"""Messages → one completion, its reasoning and its final text kept apart; and both → the one text that is scored.

The completion is what the assistant wrote: a tool's text is never part of it, and what the assistant said in earlier
steps is a thought at most. Servers cut the reasoning out of a message under several names, and model families mark
their thoughts in several ways; both are put back into the published form, ``<think>…</think>`` in front of the final
text, so that how a completion travelled changes no reward.

Everything given may be wrong: `ConversationError` says what was found, and nothing else is raised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioverify.errors import BioverifyError

OPENING, CLOSING = "<think>", "</think>"

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Beside ``content``: vLLM, SGLang and DeepSeek; OpenRouter and newer vLLM; Ollama and TRL's response templates."""

_REASONING_PARTS = ("reasoning_details", "thinking_blocks")
"""Beside ``content``, in parts: OpenRouter's and LiteLLM's."""

THOUGHT_MARKS = (
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
"""How other families of models mark a thought: opening and closing (the last: Apertus, Gemma 4, MedGemma, gpt-oss)."""

TAIL_MARKS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|return|>", "<|END_RESPONSE|>"),
    *(
        "<|end|>",
        "<｜end▁of▁sentence｜>",
        "</s>",
        "<pad>",
        "<eos>",
        "<end_of_turn>",
        "<|pad|>",
        "<|finetune_right_pad_id|>",
        "[PAD]",
        "<unk>",
        "<|END_OF_TURN_TOKEN|>",
        "<seed:eos>",
        "<turn|>",
        "<|eot|>",
        "<|role_end|>",
    ),
)
"""What a decoder leaves behind a completion if it keeps special tokens."""

_ANALYSIS = THOUGHT_MARKS[-1]
_OPENINGS = (OPENING, *(opening for opening, _ in THOUGHT_MARKS))
_FINAL_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>")
# gpt-oss decoded without its special tokens.
_BARE_CHANNELS = re.compile(r"analysis(.*?)assistantfinal", re.DOTALL)
_PUBLISHED_MARK = re.compile(r"</?think(?:\s[^<>]*)?>", re.IGNORECASE | re.ASCII)
_OPENS = re.compile(r"<think(?:\s[^<>]*)?>", re.IGNORECASE | re.ASCII)
_ENDS = "</answer>"


class ConversationError(BioverifyError, ValueError):
    """The messages hold no completion, or are none. The text names what was found and what is wanted."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the assistant wrote. ``reasoning``: what came apart from the final text; empty if nothing did."""

    reasoning: str
    final: str

    @property
    def text(self) -> str:
        return whole_completion(self.final, reasoning=self.reasoning)


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the prompt: role "system", "user", "assistant" or "tool", and its text."""

    role: str
    text: str


# --- One text ---------------------------------------------------------------------------------------------------------


def whole_completion(final: str, *, reasoning: str = "", prefix: str = "", as_published: bool = False) -> str:
    """The text that is scored, from all its parts. Done to its own result, it changes nothing.

    ``reasoning``: what a server cut out; if the final text holds a thought already, it goes in front, inside the same
    block. ``prefix``: with what the prompt ended, if it opens a thought (`opened_thought`). ``as_published``: for the
    mode ``rbio-demo``, which takes the text as it is: no spelling of thoughts and no tail is changed.
    """
    text = final if as_published else without_tail_marks(_spelled_as_published(final))
    if reasoning and not reasoning.isspace():
        return _with_reasoning(_without_marks(reasoning), text)
    if prefix and not text.lstrip().lower().startswith(OPENING):
        return prefix + text
    return text


def opened_thought(prompt: str) -> str:
    """The thought that a prompt, or a rendered template, ends with and leaves to the model; empty if there is none."""
    end = prompt[-64:]
    bare = end.rstrip()
    return OPENING + end[len(bare) :] if bare.endswith(_OPENINGS) else ""


def without_tail_marks(text: str) -> str:
    if text.endswith(_ENDS):
        return text
    end = len(text)
    while True:
        bare = end
        while bare and text[bare - 1].isspace():
            bare -= 1
        mark = next((mark for mark in TAIL_MARKS if text.endswith(mark, 0, bare)), None)
        if mark is None:
            return text[:end]
        end = bare - len(mark)


def _spelled_as_published(text: str) -> str:
    if OPENING in text or CLOSING in text or _PUBLISHED_MARK.search(text):
        return text
    if "<|channel|>" in text:
        opening, closing = _ANALYSIS
        if opening in text:
            text = text.replace(opening, OPENING).replace(closing, CLOSING)
        text = _FINAL_CHANNEL.sub("", text)
        if OPENING in text:
            return text
    start = text.lstrip()
    if start.startswith("analysis") and (bare := _BARE_CHANNELS.match(start)):
        return f"{OPENING}{bare[1]}{CLOSING}{start[bare.end() :]}"
    for opening, closing in THOUGHT_MARKS:
        # A mark that is only named in the text, and never closed, opens nothing.
        if start.startswith(opening) or (closing in text and closing != _ANALYSIS[1]):
            return text.replace(opening, OPENING).replace(closing, CLOSING)
    return text


def _with_reasoning(reasoning: str, final: str) -> str:
    closing = final.find(CLOSING)
    if closing >= 0:
        opening = _OPENS.search(final, 0, closing)
        if opening is None:
            return f"{OPENING}{reasoning}\n{final}"
        return f"{final[: opening.end()]}{reasoning}\n{final[opening.end() :]}"
    # The published checks want white space between a thought and the answer; a server that splits takes it away.
    gap = "" if not final or final[0].isspace() else "\n"
    return f"{OPENING}{reasoning}{CLOSING}{gap}{final}"


def _without_marks(reasoning: str) -> str:
    """A thought without the marks around it, which some servers leave."""
    return _PUBLISHED_MARK.sub("", reasoning) if "think" in reasoning.lower() else reasoning


# --- Messages ---------------------------------------------------------------------------------------------------------


def read_completion(given: Any) -> Completion:
    """The completion from a text, a message, or the messages that followed the prompt.

    Messages of the chat form (``content`` text, parts or null; reasoning beside it or in parts) and items of the
    responses form (``type`` "reasoning", "message", …) are read alike.
    """
    if isinstance(given, str):
        return Completion("", given)
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
        raise ConversationError(f"completion: a text or a list of messages, not {_named(given)}")
    earlier: list[str] = []
    reasoning: list[str] = []
    final: str | None = None
    final_at = ""
    for number, message in enumerate(given):
        kind, role = _kind_and_role(message, f"completion[{number}]")
        if kind == "reasoning":
            if final is not None:
                earlier += [*reasoning, final]
                reasoning, final = [], None
            reasoning.append(_reasoning_item(message, f"completion[{number}]"))
        elif role == "assistant" and kind == "message":
            own_reasoning, text = _assistant_texts(message, f"completion[{number}]")
            if final is not None:
                earlier += [*reasoning, final]
                reasoning = []
            reasoning += own_reasoning
            final = text
            final_at = "" if _is_written(message.get("content")) else f"completion[{number}].content"
        elif kind == "message":
            # Not of the assistant, so no part of the completion; but a message has to be one.
            _parts(message.get("content"), f"completion[{number}]")
    if final is None:
        if not reasoning:
            roles = ", ".join(sorted({_kind_and_role(one, "completion")[1] or "none" for one in given})) or "no message"
            raise ConversationError(f"completion: no message of the assistant; found: {roles}")
        final = ""
    thoughts = [text for text in (*map(_without_marks, earlier), *reasoning) if text and not text.isspace()]
    if final_at and not thoughts:
        # A fault of the server, or a call of a tool: not an answer that is empty.
        raise ConversationError(f"{final_at}: a text; found none, and no reasoning beside it")
    return Completion("\n".join(thoughts), final)


def read_prompt(given: Any) -> list[Turn]:
    """The turns of a prompt: a text is one turn of the user, "developer" is OpenAI's newer name of "system"."""
    if isinstance(given, str):
        return [Turn("user", given)]
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
        raise ConversationError(f"prompt: a text or a list of messages, not {_named(given)}")
    turns = []
    for number, message in enumerate(given):
        place = f"prompt[{number}]"
        kind, role = _kind_and_role(message, place)
        if kind == "message":
            turns.append(Turn(_ROLES[role], "".join(_parts(message.get("content"), place)[1])))
    return turns


_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def _kind_and_role(message: Any, place: str) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise ConversationError(f"{place}: a message with role and content, not {_named(message)}")
    kind = message.get("type", "message")
    role = message.get("role")
    if kind != "message" and role is None:
        # An item of the responses form: reasoning, a call of a tool, or what the tool said.
        return str(kind), ""
    if not isinstance(role, str) or role not in _ROLES:
        raise ConversationError(f"{place}.role: one of {', '.join(_ROLES)}, not {role!r}")
    return "message", role


def _assistant_texts(message: Mapping[str, Any], place: str) -> tuple[list[str], str]:
    in_parts, texts = _parts(message.get("content"), place)
    beside = [
        text for key in (*REASONING_KEYS, *_REASONING_PARTS) for text in _texts(message.get(key), f"{place}.{key}")
    ]
    # Some servers give the same reasoning under two names, once in the marks that they cut at.
    by_text: dict[str, str] = {}
    for text in (*beside, *in_parts):
        by_text.setdefault(_without_marks(text).strip(), text)
    return [*by_text.values()], "".join(texts)


def _is_written(content: Any) -> bool:
    """Whether there is a text at all, be it empty: null, images and calls of tools are none."""
    return isinstance(content, str) or bool(_parts(content, "")[1])


def _reasoning_item(item: Mapping[str, Any], place: str) -> str:
    """The content of a reasoning item; its summary if the content was kept back."""
    content = _texts(item.get("content"), f"{place}.content") + _texts(item.get("text"), f"{place}.text")
    return "\n".join(content or _texts(item.get("summary"), f"{place}.summary"))


def _parts(content: Any, place: str) -> tuple[list[str], list[str]]:
    """Reasoning and texts of a message's content. Parts that are no text (images, calls of tools) are left out."""
    if content is None:
        return [], []
    if isinstance(content, str):
        return [], [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise ConversationError(f"{place}.content: a text, a list of parts or null, not {_named(content)}")
    reasoning: list[str] = []
    texts: list[str] = []
    for number, part in enumerate(content):
        where = f"{place}.content[{number}]"
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            raise ConversationError(f"{where}: a text or a part with type, not {_named(part)}")
        elif part.get("thought") is True:
            # Gemini's.
            reasoning += _texts(part.get("text"), where)
        elif part.get("type") in ("thinking", "reasoning"):
            reasoning += _texts(part.get("thinking"), where) or [_reasoning_item(part, where)]
        elif part.get("type", "text") in ("text", "output_text", "input_text"):
            texts += _texts(part.get("text"), where)
    return reasoning, texts


def _texts(given: Any, place: str) -> list[str]:
    """A text, a part with a text, or a list of either; nothing for null."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        return next((_texts(given[key], place) for key in _TEXT_OF_A_PART if given.get(key) is not None), [])
    if isinstance(given, Sequence) and not isinstance(given, bytes | bytearray):
        return [text for one in given for text in _texts(one, place)]
    raise ConversationError(f"{place}: a text, not {_named(given)}")


_TEXT_OF_A_PART = ("text", "content", "thinking", "summary")


def _named(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} ({str(value)[:60]!r})"
