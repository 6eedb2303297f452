"""Which of the labels a free answer names: one documented rule, the same for every model.

Answer and label are compared as sets of words: lower case, cut at whatever is neither letter nor digit, a plural "s"
dropped, the words "cell", "a", "an" and "the" left out. In this order, the first that fits just one label decides:

1. the same words ("b cells, CD19+" is "CD19+ B");
2. all words of the label stand in the answer, of such labels one holds all the words of the others, and no further word
   of the answer is one that a single other label has ("memory CD4+ CD45RO+ T cell" is "CD4+/CD45RO+ Memory"; "dendritic
   cell or monocyte" is neither);
3. all words of the answer stand in the label ("monocyte" is "CD14+ Monocyte", if no other label has that word).

Everything else is no answer: a word that several labels share ("T cell"), two labels in one answer, an abbreviation
that the labels do not have. As everywhere here, a completion answers if it holds just one closed answer block.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from bioverify.core.answers import AnswerProblem, answer_block

_LEFT_OUT = frozenset({"cell", "a", "an", "the"})
_SHORTEST_PLURAL = 4


def named_label(completion: str, labels: Sequence[str]) -> int | None:
    """The place of the label that the completion answers; None if there is no answer, or none of them."""
    block = answer_block(completion)
    return None if isinstance(block, AnswerProblem) else match(block, labels)


def match(answer: str, labels: Sequence[str]) -> int | None:
    said = words(answer)
    if not said:
        return None
    known = [words(label) for label in labels]
    same = [place for place, own in enumerate(known) if own == said]
    if same:
        return same[0] if len(same) == 1 else None
    inside = [place for place, own in enumerate(known) if own and own < said]
    if inside:
        largest = max(inside, key=lambda place: len(known[place]))
        others = Counter(word for own in known for word in own if not own <= known[largest])
        holds_another = any(others[word] == 1 and word not in known[largest] for word in said)
        return None if holds_another or not all(known[place] <= known[largest] for place in inside) else largest
    around = [place for place, own in enumerate(known) if said < own]
    return around[0] if len(around) == 1 else None


def words(text: str) -> frozenset[str]:
    found = re.findall(r"[^\W_]+", text.casefold())
    whole = (word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") else word for word in found)
    return frozenset(word for word in whole if word not in _LEFT_OUT)
