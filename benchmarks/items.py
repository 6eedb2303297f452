"""What the benchmarks score: real questions, generated chains of thought of 40 to 400 words.

Questions are rows of the prompts artifact. Thoughts are sentences about the question's genes in the words of Gene
Ontology term names, so that symbols repeat, stems match and texts differ, as they do in training. Each group of eight
shares its question, like the members of a GRPO group. The seed decides everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.client import Message, ScoreItem
from bioverify.core.tasks import DifferentialExpression

GROUP_SIZE = 8
WORDS = (40, 400)
REPEATED_SHARE = 0.3
SYSTEM_PROMPT = "Think inside <think> </think>, then answer inside <answer> </answer>."
OPENINGS = ("Because", "Although", "Since", "It is known that", "In these cells", "Loss of function suggests that")


class Questions:
    """Rows to ask about and words to think in, read once."""

    def __init__(self, store: ArtifactStore) -> None:
        prompts = pq.read_table(store.open("prompts").path / "prompts.parquet")
        self.rows = prompts.filter(pc.equal(prompts["task_kind"], "differential_expression"))
        self.phrases: Sequence[str] = read_served(store.open("go_rouge"), "terms.arrows").strings("name")
        self.is_simulated = bool(pc.any(prompts["simulated"]).as_py())

    def draw(self, n_items: int, seed: int, words: tuple[int, int] = WORDS) -> list[ScoreItem]:
        """``n_items`` items in groups of eight over distinct random questions, of so many ``words``."""
        rng = np.random.default_rng(seed)
        rows = self._rows(rng, -(-n_items // GROUP_SIZE))
        return [
            self._item(f"{seed}-{i}", f"{seed}-{i // GROUP_SIZE}", rows[i // GROUP_SIZE], rng, words)
            for i in range(n_items)
        ]

    def step(self, n_items: int, seed: int, asked: list[dict[str, str]]) -> list[ScoreItem]:
        """A trainer's share of a step: groups of 4 to 16, three in ten about a question of ``asked``, which grows."""
        rng = np.random.default_rng(seed)
        items: list[ScoreItem] = []
        while len(items) < n_items:
            repeats = asked and rng.random() < REPEATED_SHARE
            row = asked[rng.integers(len(asked))] if repeats else self._rows(rng, 1)[0]
            asked.append(row)
            for _ in range(min(int(rng.integers(4, 17)), n_items - len(items))):
                items.append(self._item(f"{seed}-{len(items)}", f"{seed}-{len(asked)}", row, rng, WORDS))
        return items

    def _rows(self, rng: np.random.Generator, n_rows: int) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = self.rows.take(
            pa.array(rng.choice(len(self.rows), n_rows, replace=False))
        ).to_pylist()
        return rows

    def _item(
        self, item_id: str, group_id: str, row: dict[str, str], rng: np.random.Generator, words: tuple[int, int]
    ) -> ScoreItem:
        task = DifferentialExpression(row["perturbation"], row["measured_gene"], row["line"])
        prompt = (Message("system", SYSTEM_PROMPT), Message("user", task.question))
        return ScoreItem(item_id, self._completion(task, rng, words), prompt, group_id=group_id)

    def _completion(self, task: DifferentialExpression, rng: np.random.Generator, words: tuple[int, int]) -> str:
        wanted = int(rng.integers(*words))
        thoughts: list[str] = []
        n_words = 0
        while n_words < wanted:
            opening = OPENINGS[rng.integers(len(OPENINGS))]
            phrase = self.phrases[int(rng.integers(len(self.phrases)))]
            gene = task.genes[rng.integers(2)]
            sentence = f"{opening} {gene} takes part in {phrase}, its knockdown may be felt downstream."
            thoughts.append(sentence)
            n_words += len(sentence.split())
        answer = "yes" if rng.random() < 0.5 else "no"
        return f"<think>{' '.join(thoughts)}</think> <answer>{answer}</answer>"
