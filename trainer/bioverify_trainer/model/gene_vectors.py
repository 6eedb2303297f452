"""A small policy that knows what genes are, and nothing of what they do.

A question is four tokens: perturbed gene, cell line, measured gene, and what is asked about them, whether the gene
responds or in which direction. Two towers bring the frozen vectors of the two genes, out of the artifact ``esm_mlp``,
into a small space of their roles, where the measured gene has a place of its own beside that, which begins at zero and
is learned; their inner product and a scalar of each say "yes" or "no", or "increase" or "decrease": the shape of
`esm_mlp`'s own net. Of a perturbation that no question was about, only its vector tells. (A transformer of two layers
over the same tokens learned less, in several times the time: docs/training.md.)

The form of the completion, ``<answer> yes </answer>``, is fixed and not learned: after the question only ``<answer>``
has any probability, after the word only ``</answer>``. So one forward pass over the question tells all that the policy
can write, which `bioverify_trainer.one_word` trains it by. To everything else it is a transformers model and tokenizer
like any other; its cache holds the tokens before, and their places, in place of keys and values.

The words of an answer depend on the question, of which generation with a cache shows the model no more than the last
token. So each kind of question has an ``<answer>`` of its own; they are told apart by a blank, which no reader sees.

It begins with both words even for every question. A warm-up on answers would make it blind to genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.vectors import open_vectors
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import INCREASE_DECREASE, TASKS, YES_NO, TaskKind
from bioverify.files import making_folder

NAME = "gene-vectors"
SHUFFLED = "gene-vectors-shuffled"
"""The same with each gene on the vector of another: a control, from which nothing can be learned that transfers."""
PAD, UNKNOWN, CLOSES = range(3)


class Kind(NamedTuple):
    """The tokens of one kind of question: its own, the ``<answer>`` that follows it, and the two words behind that."""

    asks: int
    opens: int
    affirms: int
    denies: int


KINDS = {
    TaskKind.DIFFERENTIAL_EXPRESSION: Kind(3, 4, 5, 6),
    TaskKind.DIRECTION_OF_CHANGE: Kind(7, 8, 9, 10),
}
WORDS = (
    *("<pad>", "<unk>", "</answer>"),
    *("<responds>", "<answer>", *YES_NO),
    *("<direction>", " <answer>", *INCREASE_DECREASE),
    *CELL_LINES,
)
"""The first tokens; genes follow."""
_NEVER = -1e4
_SEED = 0
_FORM = 3
"""Of tokens and weights: a policy of another form, kept from before, is made again."""


class GeneVectorsConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Widths of the vectors, of a tower's hidden layer and of the space of a role; dropout of vectors and of hidden
    units."""

    model_type = "bioverify-gene-vectors"
    # Of its cache: one layer, in which a token is two numbers.
    num_hidden_layers = 1
    num_attention_heads = 1
    hidden_size = 2

    def __init__(
        self,
        vocab_size: int = len(WORDS),
        vector_width: int = 256,
        tower_units: int = 256,
        role_width: int = 64,
        vector_dropout: float = 0.3,
        tower_dropout: float = 0.6,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.vocab_size = vocab_size
        self.vector_width = vector_width
        self.tower_units = tower_units
        self.role_width = role_width
        self.vector_dropout = vector_dropout
        self.tower_dropout = tower_dropout


class Tower(torch.nn.Module):
    """A gene's vector in one role, in the context of cell line and kind of question."""

    def __init__(self, config: GeneVectorsConfig) -> None:
        super().__init__()
        self.vector_dropout = torch.nn.Dropout(config.vector_dropout)
        self.of_vector = torch.nn.Linear(config.vector_width, config.tower_units)
        self.tower_dropout = torch.nn.Dropout(config.tower_dropout)
        self.role = torch.nn.Linear(config.tower_units, config.role_width)

    def forward(self, vectors: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.of_vector(self.vector_dropout(vectors)) + context)
        role: torch.Tensor = self.role(self.tower_dropout(hidden))
        return role


class GeneVectorsModel(PreTrainedModel, GenerationMixin):
    """See the module."""

    config_class = GeneVectorsConfig
    vectors: torch.Tensor

    def __init__(self, config: GeneVectorsConfig) -> None:
        super().__init__(config)
        self.register_buffer("vectors", torch.zeros(config.vocab_size, config.vector_width))
        self.words = torch.nn.Embedding(len(WORDS), config.tower_units)
        self.perturbed, self.measured = Tower(config), Tower(config)
        self.learned = torch.nn.Embedding(config.vocab_size, config.role_width)
        self.strength = torch.nn.Linear(config.role_width, 1)
        self.rate = torch.nn.Linear(config.role_width, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: torch.nn.Module) -> None:
        # Layers begin as torch has them, but that lines and kinds begin alike, and all questions at even odds.
        if module in {self.words, self.perturbed.role, self.learned, self.strength, self.rate}:
            for parameter in module.parameters():
                torch.nn.init.zeros_(parameter)

    def answer_log_probabilities(self, ids: torch.Tensor) -> torch.Tensor:
        """Of the affirming and the denying word, rows × 2. ``ids``: questions, without ``<answer>``."""
        perturbed, line, measured, kind = ids.unbind(dim=1)
        context = self.words(torch.stack([line, kind]).clamp(max=len(WORDS) - 1)).sum(dim=0)
        one = self.perturbed(self.vectors[perturbed], context)
        other = self.measured(self.vectors[measured], context) + self.learned(measured)
        product = (one * other).sum(dim=1, keepdim=True) / self.config.role_width**0.5
        logit = product + self.strength(one) + self.rate(other)
        return torch.nn.functional.logsigmoid(torch.cat([logit, -logit], dim=1))

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
        del attention_mask, use_cache  # what is not to be seen is padding, and a cache is given if one is wanted
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        # In float32 all token numbers are exact. Places count from 1: what a cache has not been told yet is 0.
        told = torch.stack([input_ids, position_ids + 1], dim=-1).float() * (input_ids != PAD).unsqueeze(-1)
        if past_key_values is not None:
            told = past_key_values.update(told.unsqueeze(1), told.unsqueeze(1), 0)[0].squeeze(1)
        ids, places = input_ids[:, -logits_to_keep:], position_ids[:, -logits_to_keep:] + 1
        logits = self.vectors.new_full((*ids.shape, self.config.vocab_size), _NEVER)
        logits.scatter_(2, _opens(ids).unsqueeze(-1), 0.0)
        for kind in KINDS.values():
            is_opened = ids == kind.opens
            logits[is_opened] = _NEVER
            rows, columns = is_opened.nonzero(as_tuple=True)
            if len(rows):
                before = places[rows, columns].unsqueeze(1) - torch.arange(4, 0, -1, device=ids.device)
                is_there = told[rows, :, 1].unsqueeze(1) == before.unsqueeze(2)
                question = (told[rows, :, 0].unsqueeze(1) * is_there).sum(dim=2).long()
                answers = self.answer_log_probabilities(question).to(logits.dtype)
                logits[rows, columns, kind.affirms : kind.denies + 1] = answers
        is_answered = torch.isin(ids, ids.new_tensor([CLOSES, *(word for kind in KINDS.values() for word in kind[2:])]))
        logits[is_answered] = _NEVER
        logits[..., CLOSES] = torch.where(is_answered, 0.0, _NEVER)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


def _opens(ids: torch.Tensor) -> torch.Tensor:
    """The ``<answer>`` of each place, if it were the end of a question."""
    responds, direction = KINDS.values()
    return torch.where(ids == direction.asks, direction.opens, responds.opens)


AutoConfig.register(GeneVectorsConfig.model_type, GeneVectorsConfig)
AutoModelForCausalLM.register(GeneVectorsConfig, GeneVectorsModel)


def tokenizer(genes: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per gene and word. Of what every question of a kind says, only the kind is left."""
    words = Tokenizer(WordLevel({word: code for code, word in enumerate((*WORDS, *genes))}, unk_token=WORDS[UNKNOWN]))
    pieces: dict[str, str] = {}
    for kind, tokens in KINDS.items():
        *between, end = TASKS[kind].about("\n", "\n", "\n").question.split("\n")
        pieces |= dict.fromkeys(between, " ") | {end: f" {WORDS[tokens.asks]} "}
    # The longest first: a short piece stands inside of a longer one.
    longest_first = sorted(pieces.items(), key=lambda piece: len(piece[0]), reverse=True)
    words.normalizer = normalizers.Sequence([normalizers.Replace(piece, token) for piece, token in longest_first])
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


def question_ids(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> torch.Tensor:
    """Questions × 4. A question is all that the policy's chat template writes of a conversation."""
    return torch.tensor(tokenizer(list(questions), add_special_tokens=False)["input_ids"])


def completion(kind: TaskKind, word: int) -> str:
    """What the policy writes for the affirming (0) or denying (1) word."""
    words = TASKS[kind].words
    assert words is not None
    return f"<answer> {words[word]} </answer>"


def make(store: ArtifactStore, models: Path, which: str = NAME) -> Path:
    """The folder of a new policy over the vectors of the store; kept below ``models``. Raises ArtifactError.

    ``which``: `NAME` or `SHUFFLED`.
    """
    known = open_vectors(store)
    folder = models / f"{which}-{_FORM}-{known.digest.removeprefix('sha256:')[:16]}"
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
        vocab_size=len(WORDS) + len(row),
        vector_width=vectors.shape[1],
        bos_token_id=None,
        eos_token_id=CLOSES,
        pad_token_id=PAD,
    )
    model = GeneVectorsModel(config)
    scale = np.sqrt(np.mean(vectors**2, dtype=np.float64))
    model.vectors[len(WORDS) :] = torch.from_numpy(vectors / np.float32(scale))
    with making_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer(row).save_pretrained(unfinished)
    return folder
