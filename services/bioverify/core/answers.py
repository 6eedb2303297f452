"""Reading the answer off a completion: one rule for every verifier, the trainer and the evaluation.

A completion answers if exactly one ``<answer>`` block stands behind its last ``</think>``, is closed, and says one of
the two words that the question offers. A tag that is named inside the thoughts is no answer, nor is anything in a
thought that never closes. Everything else is no answer, with the reason kept.

A tag is its name in any letter case, with or without white space or attributes behind it: ``<ANSWER>``, ``<answer >``
and ``<answer confidence="0.8">`` open an answer. (The form checks count the published spelling only.)

In the block, a leading yes or no decides. Otherwise one of the two words must stand there, as a whole word that is not
negated, and the other must not. A word is negated by what stands before it in its clause ("does not increase", "fails
to increase") and by what is said of it right behind ("an increase is unlikely", "yes is wrong").
"""

from __future__ import annotations

import re
from enum import StrEnum

from bioverify.core import rbio_demo
from bioverify.core.questions import plain_characters
from bioverify.core.tasks import INCREASE_DECREASE, TASKS, YES_NO, AnswerWords, Task, TaskKind


class ParseMode(StrEnum):
    WHOLE_WORDS = "whole-words"
    RBIO_DEMO = "rbio-demo"


class AnswerProblem(StrEnum):
    EMPTY_COMPLETION = "empty_completion"
    NO_ANSWER_BLOCK = "no_answer_block"
    SEVERAL_ANSWER_BLOCKS = "several_answer_blocks"
    NO_ANSWER_WORD = "no_answer_word"
    BOTH_ANSWER_WORDS = "both_answer_words"


Answer = bool | AnswerProblem
"""True for "yes" or "increase", False for "no" or "decrease", otherwise why there is none."""

_TAG = re.compile(r"<(/?)(?:(think)|answer)(?:\s[^<>]*)?>", re.IGNORECASE | re.ASCII)
_END_OF_THOUGHTS = "</think>"
_AT_ONCE = {words: {words.affirming: True, words.denying: False} for words in (YES_NO, INCREASE_DECREASE)}

# A hyphen between letters makes one word of two ("yes-no"), one at a word's edge is a dash.
_WHOLE = r"(?<!\w)(?<!\w-)(?:{})(?!\w)(?!-\w)"
_BREAK = r"[.,;:!?()\n=]|\b(?:although|but|hence|however|so|then|therefore|though|thus|yet)\b"
_NEGATION = (
    r"\b(?:absence of|anything but|cannot|far from|hardly|instead of|neither|never|nor|not|opposite of|rather than"
    r"|unlikely|without)\b|n't\b"
)
# Of a change, besides: it does not come about.
_HINDERED = (
    r"\b(?:against|less|no|unable)\b"
    r"|\b(?:abolish|avoid|block|fail|lack|preclud|prevent|suppress)(?:e|ed|es|ing|s)?\b"
)
# Right behind a word, with or without what changes: "increase of TRIB3 is not expected".
_DENIED = re.compile(
    r"\W*(?: (?:in|of) (?:the )?(?:expression of )?[\w-]+(?: expression)?)?"
    r"(?: (?:(?:is|are|was|were|seems?|looks?|appears?|can|could|does|did|may|might|should|will|would)"
    r"(?:n't\b| (?:be |clearly |highly |most |quite |rather |very )*"
    r"(?:not|excluded|false|implausible|impossible|improbable|incorrect|ruled out|unlikely|wrong)\b)"
    r"|(?:cannot|can't|won't)\b)| ?\? no\b)",
    re.IGNORECASE,
)
# "no doubt", "no longer": no answer. Before another word, "no" belongs to that word.
_NO = _WHOLE.format(r"no(?! (?!(?:and|as|because|but|for|given|it|or|since)\b)\w)")
_UP = _WHOLE.format("increas(?:e[sd]?|ing)|up-?regulat(?:e[sd]?|ing|ion)")
_DOWN = _WHOLE.format("decreas(?:e[sd]?|ing)|down-?regulat(?:e[sd]?|ing|ion)")
_WORDS = {
    words: re.compile(
        rf"(?P<negation>{negation})|(?P<affirming>{affirming})|(?P<denying>{denying})|(?P<break>{_BREAK})",
        re.IGNORECASE,
    )
    for words, negation, affirming, denying in (
        (YES_NO, _NEGATION, _WHOLE.format("yes"), _NO),
        (INCREASE_DECREASE, rf"{_NEGATION}|{_HINDERED}", _UP, _DOWN),
    )
}
_LEADING = re.compile(
    r"\W*(?:(yes)|(no)(?! (?:answer|clue|comment|conclusion|data|doubt|guess|idea|information|less|longer|matter|more"
    r"|one|opinion|problem|question|wonder)\b))(?!\w)(?!-\w)",
    re.IGNORECASE,
)
_OTHER_FOLLOWS = re.compile(rf"[\W_]*(?:(?:and|or)\b\W*)?(?:{_WHOLE.format('yes')}|{_NO})", re.IGNORECASE)
_LONG_DASH = re.compile("[\u2014\u2015\u2e3a]")
_MARKUP = re.compile(r"[*`~]|(?<![^\W_])_+|_+(?![^\W_])")


def parse_answer(completion: str, kind: TaskKind | None = None, mode: ParseMode = ParseMode.WHOLE_WORDS) -> Answer:
    """Read the answer off a completion.

    ``kind`` decides which pair of words counts: increase/decrease for a direction of change, otherwise yes/no.
    In mode ``rbio-demo`` the rule is the published demo's (substrings, first block, then the whole text), which knows
    yes and no only; a direction of change is then read by whole words all the same.
    """
    if not completion or completion.isspace():
        return AnswerProblem.EMPTY_COMPLETION
    words = (TASKS[kind].words if kind is not None else None) or YES_NO
    if mode is ParseMode.RBIO_DEMO and words is YES_NO:
        demo_answer = rbio_demo.extract_answer(completion)
        return AnswerProblem.NO_ANSWER_WORD if demo_answer is None else demo_answer
    block = answer_block(completion)
    if isinstance(block, AnswerProblem):
        return block
    said = _AT_ONCE[words].get(block.strip())
    return _read_words(block, words) if said is None else said


def answer_word(answer: Answer | None, task: Task | None) -> str | None:
    """The answer in the question's own words, or why there is none; None if the question has no yes or no."""
    if answer is None or isinstance(answer, AnswerProblem):
        return answer
    words = (task and task.words) or YES_NO
    return words.affirming if answer else words.denying


def answer_block(completion: str) -> str | AnswerProblem:
    """What stands in the one answer block behind the thoughts, or why there is none to read."""
    start = completion.rfind(_END_OF_THOUGHTS) + 1
    openings = 0
    opened_at = -1
    block: str | None = None
    in_thought = False
    for tag in _TAG.finditer(completion, start):
        closes, is_think = tag[1], tag[2]
        if is_think:
            in_thought = not closes
            if closes:
                openings, opened_at, block = 0, -1, None
        elif in_thought:
            continue
        elif not closes:
            openings += 1
            opened_at = tag.end()
        elif openings == 1 and block is None:
            block = completion[opened_at : tag.start()]
    if openings > 1:
        return AnswerProblem.SEVERAL_ANSWER_BLOCKS
    return AnswerProblem.NO_ANSWER_BLOCK if block is None else block


def _read_words(block: str, words: AnswerWords) -> Answer:
    # An em dash parts words; a hyphen makes one of two.
    text = _MARKUP.sub("", plain_characters(_LONG_DASH.sub(" - ", block)))
    if words is YES_NO and (leading := _LEADING.match(text)):
        if (other := _OTHER_FOLLOWS.match(text, leading.end())) and other[0][-1:].lower() != leading[0][-1:].lower():
            return AnswerProblem.BOTH_ANSWER_WORDS
        return AnswerProblem.NO_ANSWER_WORD if _DENIED.match(text, leading.end()) else leading[1] is not None
    affirmed = denied = is_negated = False
    for word in _WORDS[words].finditer(text):
        if word.lastgroup == "break":
            is_negated = False
        elif word.lastgroup == "negation":
            is_negated = True
        elif not is_negated and not _DENIED.match(text, word.end()):
            affirmed |= word.lastgroup == "affirming"
            denied |= word.lastgroup == "denying"
    if affirmed and denied:
        return AnswerProblem.BOTH_ANSWER_WORDS
    if not affirmed and not denied:
        return AnswerProblem.NO_ANSWER_WORD
    return affirmed
