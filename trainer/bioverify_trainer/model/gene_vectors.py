"""A policy of half a million weights that knows what genes are, and nothing of what they do.

A question is three tokens: perturbed gene, cell line, measured gene. A gene's embedding is a trained linear map of its
frozen vector, out of the artifact ``esm_mlp``; over these stands a GPT-2 of two layers, whose head says "yes" or "no".
The form of the completion, ``<answer> yes </answer>``, is fixed and not learned: after the question only ``<answer>``
has any probability, after the word only ``</answer>``. So one forward pass over question and ``<answer>`` tells all
that the policy can write, which `bioverify_trainer.one_word` trains it by. To everything else it is a transformers
model and tokenizer like any other.

The head begins at zero: yes and no are even for every question. A warm-up on answers would make it blind to genes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace, Sequence
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    GenerationMixin,
    GPT2Config,
    GPT2Model,
    GPT2PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.vectors import open_vectors
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import DifferentialExpression
from bioverify.files import making_folder

NAME = "gene-vectors"
SHUFFLED = "gene-vectors-shuffled"
"""The same with each gene on the vector of another: a control, from which nothing can be learned that transfers."""
PAD, UNKNOWN, OPENS, CLOSES, YES, NO = range(6)
WORDS = ("<pad>", "<unk>", "<answer>", "</answer>", "yes", "no", *CELL_LINES)
"""The first tokens; genes follow."""
_NEVER = -1e4
_SEED = 0


class GeneVectorsConfig(GPT2Config):  # type: ignore[no-untyped-call]
    """GPT-2's, and the width of the vectors."""

    model_type = "bioverify-gene-vectors"

    def __init__(self, vector_width: int = 128, vector_dropout: float = 0.2, **others: Any) -> None:
        super().__init__(**others)
        self.vector_width = vector_width
        self.vector_dropout = vector_dropout


class GeneEmbedding(torch.nn.Module):
    """Words have trained embeddings of their own, genes a trained map of their frozen vectors."""

    vectors: torch.Tensor

    def __init__(self, config: GeneVectorsConfig) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(len(WORDS), config.n_embd)
        self.register_buffer("vectors", torch.zeros(config.vocab_size - len(WORDS), config.vector_width))
        self.dropout = torch.nn.Dropout(config.vector_dropout)
        self.of_vector = torch.nn.Linear(config.vector_width, config.n_embd)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        of_words: torch.Tensor = self.words(ids.clamp(max=len(WORDS) - 1))
        of_genes = self.of_vector(self.dropout(self.vectors[(ids - len(WORDS)).clamp(min=0)]))
        return torch.where((ids < len(WORDS)).unsqueeze(-1), of_words, of_genes)


class GeneVectorsModel(GPT2PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """See the module."""

    config_class = GeneVectorsConfig

    def __init__(self, config: GeneVectorsConfig) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.transformer.wte = GeneEmbedding(config)  # type: ignore[assignment]
        self.head = torch.nn.Linear(config.n_embd, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def answer_log_probabilities(self, ids: torch.Tensor) -> torch.Tensor:
        """Of yes and no, rows × 2. ``ids``: questions, without ``<answer>``."""
        opened = torch.cat([ids, ids.new_full((len(ids), 1), OPENS)], dim=1)
        last = self.transformer(input_ids=opened, use_cache=False).last_hidden_state[:, -1]
        found: torch.Tensor = self.head(last).log_softmax(dim=1)
        return found

    def forward(
        self,
        input_ids: torch.Tensor,
        *,
        # By name: `generate` passes on only what it finds in the signature.
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_others: Any,
    ) -> CausalLMOutputWithPast:
        """``logits_to_keep``: of how many last places; 0: of all."""
        found = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        hidden, ids = found.last_hidden_state[:, -logits_to_keep:], input_ids[:, -logits_to_keep:]
        logits = hidden.new_full((*ids.shape, self.config.vocab_size), _NEVER)
        is_answered = (ids == YES) | (ids == NO) | (ids == CLOSES)
        logits[..., OPENS] = torch.where(is_answered | (ids == OPENS), _NEVER, 0.0)
        logits[..., CLOSES] = torch.where(is_answered, 0.0, _NEVER)
        opened = (ids == OPENS).unsqueeze(-1)
        logits[..., YES : NO + 1] = torch.where(opened, self.head(hidden), logits[..., YES : NO + 1])
        return CausalLMOutputWithPast(logits=logits, past_key_values=found.past_key_values)


AutoConfig.register(GeneVectorsConfig.model_type, GeneVectorsConfig)
AutoModelForCausalLM.register(GeneVectorsConfig, GeneVectorsModel)


def tokenizer(genes: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per gene and word. What every question about differential expression says is left out of it."""
    words = Tokenizer(WordLevel({word: code for code, word in enumerate((*WORDS, *genes))}, unk_token=WORDS[UNKNOWN]))
    slots = ("{0}", "{1}", "{2}")
    fixed = DifferentialExpression(slots[0], slots[1], slots[2]).question
    for slot in slots:
        fixed = fixed.replace(slot, "\n")
    # The longest first: a short piece stands inside of a longer one.
    pieces = sorted(filter(None, fixed.split("\n")), key=len, reverse=True)
    words.normalizer = Sequence([Replace(piece, " ") for piece in pieces])
    words.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        pad_token=WORDS[PAD],
        unk_token=WORDS[UNKNOWN],
        eos_token=WORDS[CLOSES],
        padding_side="left",
    )
    made.chat_template = "{{ messages[-1]['content'] }}"
    return made


def make(store: ArtifactStore, models: Path, which: str = NAME) -> Path:
    """The folder of a new policy over the vectors of the store; kept below ``models``. Raises ArtifactError.

    ``which``: `NAME` or `SHUFFLED`.
    """
    known = open_vectors(store)
    folder = models / f"{which}-{known.digest.removeprefix('sha256:')[:16]}"
    if folder.is_dir():
        return folder
    row = {symbol: place for place, symbol in enumerate(known.symbols)}
    table, _ = open_prompts(store)
    asked = {name for column in ("perturbation", "measured_gene") for name in table[column].unique().to_pylist()}
    for name in sorted(asked - row.keys()):
        # Screens write symbols of their day.
        symbol = known.resolver.resolve(name)
        if isinstance(symbol, str) and symbol in row:
            row[name] = row[symbol]
    places = np.fromiter(row.values(), np.int64)
    if which == SHUFFLED:
        # Two names of one gene stay on one vector.
        places = np.random.default_rng(_SEED).permutation(len(known.symbols))[places]
    vectors = known.vectors[places]
    torch.manual_seed(_SEED)
    config = GeneVectorsConfig(
        vector_width=vectors.shape[1],
        vocab_size=len(WORDS) + len(row),
        n_positions=512,
        n_embd=128,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.3,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=CLOSES,
        pad_token_id=PAD,
    )
    model = GeneVectorsModel(config)
    with torch.no_grad():
        scale = np.sqrt(np.mean(vectors**2, dtype=np.float64))
        model.transformer.wte.vectors.copy_(torch.from_numpy(vectors / np.float32(scale)))  # type: ignore[operator]
        model.head.weight.zero_()
        model.head.bias.zero_()
    with making_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer(row).save_pretrained(unfinished)
    return folder
