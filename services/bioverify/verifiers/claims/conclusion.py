"""What the thoughts conclude, if they do: the last sentence that says so decides.

A conclusion is a sentence with "therefore", "thus", "hence", "in conclusion", "overall", "answer is" or the like. Of a
question for a change it says yes if it speaks of a change, an effect or an expression that is altered, no if it denies
that; "yes" and "no" behind "answer" are taken at their word. Of a direction it says which one it names, if it names one
and denies nothing. Everything else is no conclusion.
"""

from __future__ import annotations

import re

from bioverify.core.tasks import TaskKind

REACH = 600
"""Characters from the end of the thoughts."""
_SENTENCE = re.compile(r"[^.!?\n]+")
_CONCLUDING = (
    "therefore", "thus", "hence", "consequently", "in conclusion", "overall", "conclude", "answer is", "answer:", "so,",
)  # fmt: skip
_CONCLUDES = re.compile(rf"\b(?:{'|'.join(_CONCLUDING)})")
_SAID = re.compile(r"\banswer(?: is|:)\W*(?:(yes)|(no))\b")
_DENIES = re.compile(r"\b(?:not|no|never|unlikely|without|cannot|neither|unaffected|unchanged|little)\b|n't\b")
_CHANGES = re.compile(
    r"\b(?:differential\w*|chang\w+|affect\w*|alter\w*|unaffected|unchanged|impact\w*|influenc\w+|respon\w+|increas\w+|"
    r"decreas\w+|(?:up|down)-?regulat\w+|effect)\b"
)
_UP = re.compile(r"\b(?:increas\w+|up-?regulat\w+|rises?|higher|elevat\w+)\b")
_DOWN = re.compile(r"\b(?:decreas\w+|down-?regulat\w+|falls?|lower|reduc\w+)\b")


def concluded(thoughts: str, kind: TaskKind) -> bool | None:
    """True for yes or increase, False for no or decrease, None without a conclusion."""
    end = thoughts[-REACH:].lower()
    # Plain texts are found in a twentieth of the time that the pattern takes to find none.
    if not any(word in end for word in _CONCLUDING):
        return None
    for sentence in reversed(_SENTENCE.findall(end)):
        if any(word in sentence for word in _CONCLUDING) and _CONCLUDES.search(sentence):
            said = _read(sentence, kind)
            if said is not None:
                return said
    return None


def _read(sentence: str, kind: TaskKind) -> bool | None:
    if kind is TaskKind.DIRECTION_OF_CHANGE:
        up, down = bool(_UP.search(sentence)), bool(_DOWN.search(sentence))
        return up if up != down and not _DENIES.search(sentence) else None
    if said := _SAID.search(sentence):
        return said[1] is not None
    return not _DENIES.search(sentence) if _CHANGES.search(sentence) else None
