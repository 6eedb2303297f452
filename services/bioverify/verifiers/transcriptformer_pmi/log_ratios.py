"""Asks TranscriptFormer how much more likely each gene becomes once another one was seen:

    R[g1, g2] = log P(g2 | assay, g1) − log P(g2 | assay)

``python -m bioverify.verifiers.transcriptformer_pmi.log_ratios CHECKPOINT OUT`` runs where ``transcriptformer`` is
installed, an environment (and image) of its own, and needs nothing else of bioverify. The model is generative and reads
a cell as assay, start, gene, gene, …: its gene logits after the start give P(g | assay), and those after one gene with
a count give P(g | assay, g1), both by a softmax over the whole vocabulary after the model's own soft cap. So one pass
over three tokens gives a row. `build` makes the artifact: symmetric, scaled, under current symbols.

OUT holds ``log_ratios.npy`` (half precision, memory-mapped, one row per gene), ``genes.json`` (their Ensembl ids), and
``run.json``: what was asked of which weights, how many rows are done, and in the end the checksums. Rows are written in
shards and counted after they are on disk, so a run that was killed goes on after its last whole shard. A batch is as
large as half of the free memory of the GPU allows, or `CPU_BATCH` genes.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bioverify.artifacts.checksums import sha256_of
from bioverify.errors import BioverifyError
from bioverify.files import replace_file
from bioverify.verifiers.transcriptformer_pmi.run_files import GENES_FILE, RATIOS_FILE, RUN_FILE, WEIGHTS_FILE

CONFIG_FILE, VOCABULARY_FOLDER = "config.json", "vocabs"
ROWS_PER_SHARD, CPU_BATCH = 1024, 64

Logits = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Tokens of genes → log P(· | assay), and one row of log P(· | assay, gene) each."""


class RunError(BioverifyError, ValueError):
    """What was wrong, where, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """``genes``: names in the order of their tokens, without special ones; ``tokens``: theirs."""

    model: Any
    genes: list[str]
    tokens: torch.Tensor
    assays: dict[str, int]
    sha256: dict[str, str]


def open_checkpoint(folder: Path, device: torch.device) -> Checkpoint:
    """Load a folder as TranscriptFormer publishes them. Raises RunError if a file is missing or of another form."""
    from transcriptformer.data.dataclasses import DataConfig, LossConfig, ModelConfig
    from transcriptformer.model.model import Transcriptformer
    from transcriptformer.tokenizer.vocab import construct_gene_embeddings, open_vocabs

    written = _read_json(folder / CONFIG_FILE)
    try:
        sections = {name: written["model"][name] for name in ("data_config", "model_config", "loss_config")}
        files = [folder / VOCABULARY_FOLDER / Path(name).name for name in sections["data_config"]["esm2_mappings"]]
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / CONFIG_FILE}: no configuration of TranscriptFormer, {error} is missing") from error
    if sections["data_config"].get("aux_cols") != "assay":
        raise RunError(f"{folder / CONFIG_FILE}: aux_cols is {sections['data_config'].get('aux_cols')}, expected assay")
    for path in (folder / WEIGHTS_FILE, *files):
        if not path.is_file() or path.suffix not in {".pt", ".h5"}:  # the package would unpickle other endings
            raise RunError(f"{path}: no such file. Fetch it with: bioverify data fetch tf_sapiens")
    vocabulary, embeddings = construct_gene_embeddings(list(map(str, files)), sections["data_config"]["special_tokens"])
    assays: dict[str, dict[str, int]] = open_vocabs(str(folder / VOCABULARY_FOLDER), ["assay"], verbose=False)
    # Assay, start, gene: attention in its published blocks of 128 would cost forty times as much.
    three_tokens = {"aux_len": 1, "seq_len": 2, "block_len": 3, "compile_block_mask": False}
    model_config = dataclasses.replace(_configured(ModelConfig, sections["model_config"]), **three_tokens)
    model = Transcriptformer(
        _configured(DataConfig, sections["data_config"]),
        model_config,
        _configured(LossConfig, sections["loss_config"]),
        gene_vocab_dict=vocabulary,
        aux_vocab_dict=assays,
        emb_matrix=torch.from_numpy(embeddings),
    )
    model.load_state_dict(torch.load(folder / WEIGHTS_FILE, weights_only=True, map_location="cpu", mmap=True))
    special = set(sections["data_config"]["special_tokens"])
    genes = {name: token for name, token in vocabulary.items() if name not in special}
    return Checkpoint(
        model=model.eval().to(device),
        genes=list(genes),
        tokens=torch.tensor(list(genes.values()), device=device),
        assays=assays["assay"],
        sha256={path.name: sha256_of(path) for path in (folder / WEIGHTS_FILE, *files)},
    )


def log_probabilities(checkpoint: Checkpoint, assay: str, count: float) -> Logits:
    """The model's answers for cells of ``assay`` whose first gene has ``count`` transcripts. Raises RunError."""
    from transcriptformer.data.dataclasses import BatchData
    from transcriptformer.model.losses import logit_softcap

    if assay not in checkpoint.assays:
        alike = difflib.get_close_matches(assay, checkpoint.assays, 3, 0.3) or list(checkpoint.assays)[:10]
        raise RunError(f"the checkpoint knows no assay {assay!r}; there are {', '.join(map(repr, alike))}, …")
    model, softcap = checkpoint.model, checkpoint.model.model_config.softcap

    def ask(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # The last gene is only predicted, never read, so it may be padding.
        padding = torch.full_like(tokens, model.gene_vocab.pad_idx)
        counts = torch.stack([torch.full_like(tokens, count, dtype=torch.float32), torch.zeros_like(tokens)], dim=1)
        batch = BatchData(
            gene_counts=counts,
            gene_token_indices=torch.stack([tokens, padding], dim=1),
            aux_token_indices=torch.full_like(tokens, checkpoint.assays[assay]).unsqueeze(1),
        )
        logits = model(batch, embed=False)["gene_logit"]
        first, second = (logit_softcap(part, softcap).log_softmax(dim=-1) for part in (logits[:1, 0], logits[:, 1]))
        return first[0], second

    return ask


def compute(
    checkpoint: Checkpoint,
    out: Path,
    plan: dict[str, Any],
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    batch: int | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Fill ``out``, resuming an earlier run of the same ``plan``. Raises RunError for another plan."""
    out.mkdir(parents=True, exist_ok=True)
    n_genes = len(checkpoint.genes)
    path = out / RATIOS_FILE
    n_done = _rows_done(out, plan)
    if n_done == 0:
        _write_json(out / GENES_FILE, checkpoint.genes)
        np.lib.format.open_memmap(path, "w+", np.float16, (n_genes, n_genes)).flush()
    matrix: npt.NDArray[np.float16] = np.load(path, mmap_mode="r+")
    batch = batch or planned_batch(checkpoint)
    ask = log_probabilities(checkpoint, plan["assay"], plan["count"])
    started, n_before = time.monotonic(), n_done
    tell(f"{n_genes:,} genes, {n_done:,} done, {batch:,} at a time on {checkpoint.tokens.device}")
    while n_done < n_genes:
        stop = min(n_done + rows_per_shard, n_genes)
        for start in range(n_done, stop, batch):
            rows = slice(start, min(start + batch, stop))
            matrix[rows] = log_ratios(ask, checkpoint.tokens, rows)
        matrix.flush()  # type: ignore[attr-defined]  # a memmap
        n_done = stop
        _write_json(out / RUN_FILE, {**plan, "rows_done": n_done})
        per_gene_s = (time.monotonic() - started) / (n_done - n_before)
        left_s = per_gene_s * (n_genes - n_done)
        tell(f"{n_done:,} of {n_genes:,} genes, {per_gene_s:.4f} s per gene, {left_s / 60:.1f} min left")
    del matrix
    sha256 = {name: sha256_of(out / name) for name in (RATIOS_FILE, GENES_FILE)}
    _write_json(out / RUN_FILE, {**plan, "rows_done": n_done, "sha256": sha256})
    tell(f"Done. Build the artifact: bioverify data build transcriptformer_pmi --source log_ratios={out / RUN_FILE}")


def log_ratios(ask: Logits, tokens: torch.Tensor, rows: slice) -> npt.NDArray[np.float16]:
    """Rows of R over the genes that ``tokens`` name."""
    with torch.inference_mode():
        before, after = ask(tokens[rows])
        ratios = after[:, tokens] - before[tokens]
        if not torch.isfinite(ratios).all():
            raise RunError(f"genes {rows.start} to {rows.stop}: the model's logits are not finite; check its weights")
        halves: npt.NDArray[np.float16] = ratios.to(torch.float16).cpu().numpy()
    return halves


def planned_batch(checkpoint: Checkpoint) -> int:
    """Genes at a time: logits of two positions and three copies of one of them are what takes memory."""
    if checkpoint.tokens.device.type != "cuda":
        return CPU_BATCH
    free_bytes, _ = torch.cuda.mem_get_info(checkpoint.tokens.device)
    bytes_per_gene: int = 5 * 4 * checkpoint.model.gene_vocab.vocab_size
    return max(1, min(ROWS_PER_SHARD, free_bytes // 2 // bytes_per_gene))


def _rows_done(out: Path, plan: dict[str, Any]) -> int:
    if not (out / RUN_FILE).is_file():
        return 0
    before = _read_json(out / RUN_FILE)
    n_done = before.pop("rows_done", 0)
    before.pop("sha256", None)
    if before != plan:
        changed = ", ".join(key for key in {**before, **plan} if before.get(key) != plan.get(key))
        raise RunError(f"{out}: begun with another {changed}. Name another folder, or remove this one")
    return int(n_done)


def _configured(kind: type, written: dict[str, Any]) -> Any:
    """The package's own data class from a section of the configuration, whose further keys belong to other tools."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    known = {name: value for name, value in written.items() if name in fields}
    absent = {
        name: None
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and name not in known
    }
    return kind(**known, **absent)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: no such file. CHECKPOINT is a folder such as tf_sapiens") from None
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}). Remove the folder and begin again") from error


def _write_json(path: Path, value: object) -> None:
    replace_file(path, json.dumps(value, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="log P(g2 | assay, g1) − log P(g2 | assay) of all pairs of genes.")
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, model_weights.pt, vocabs/")
    parser.add_argument("out", type=Path, help="folder to fill; a run that was killed goes on in it")
    parser.add_argument("--assay", default="10x 3' v3", help="as the checkpoint's vocabulary writes it")
    parser.add_argument("--count", type=float, default=1.0, help="transcripts of the first gene")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="genes at a time; by default what memory allows")
    parser.add_argument("--rows-per-shard", type=int, default=ROWS_PER_SHARD)
    asked = parser.parse_args()
    try:
        checkpoint = open_checkpoint(asked.checkpoint, torch.device(asked.device))
        plan = {
            "package": f"transcriptformer {version('transcriptformer')}",
            "checkpoint": asked.checkpoint.resolve().name,
            "checkpoint_sha256": checkpoint.sha256,
            "assay": asked.assay,
            "count": asked.count,
            "softcap": checkpoint.model.model_config.softcap,
            "genes": len(checkpoint.genes),
        }
        compute(checkpoint, asked.out, plan, rows_per_shard=asked.rows_per_shard, batch=asked.batch)
    except RunError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
