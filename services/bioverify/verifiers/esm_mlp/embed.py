"""Makes a file of gene vectors with a language model: ESM2 over proteins, a sentence model over gene descriptions.

``python -m bioverify.verifiers.esm_mlp.embed proteins FASTA MODEL OUT.safetensors`` and ``… texts TABLE MODEL OUT``.
MODEL is a folder or a hub name of a transformers checkpoint. A vector is the mean over residues or words of one hidden
layer (``--layer``; the last by default; rbio's and TranscriptFormer's ESM2-3B vectors are layer 33 of 36). Start, end
and padding tokens are no residues. Sequences are cut at 1,022 residues, texts at 128 tokens. The gene of a FASTA
entry is its ``gene_symbol:`` or ``GN=``, else the ``gene:`` id without version, else the first word of its header;
TABLE is tab-separated with the gene in the column ``preferred_name`` and the text in ``annotation``, as STRING writes
it. What is read so far is kept beside OUT (``OUT.part``), so that a run that was stopped goes on when the same command
is given again; a file of other texts, model or layer is begun anew.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.vectors import Vectors
from bioverify.verifiers.esm_mlp.embeddings import mean_per_gene, write_vectors

MAX_RESIDUES, MAX_TEXT_TOKENS = 1022, 128
_GENE_OF_HEADER = (re.compile(r"\bgene_symbol:(\S+)"), re.compile(r"\bGN=(\S+)"), re.compile(r"\bgene:([^\s.]+)"))

app = typer.Typer(help="Vectors per gene, for: bioverify data build esm_mlp --source gene_vectors.NAME=OUT")
Layer = Annotated[int, typer.Option(help="Hidden layer: 0 is the input, -1 the last.")]


@app.command()
def proteins(fasta: Path, model: str, out: Path, *, layer: Layer = -1, batch: int = 8) -> None:
    """ESM2 of any size over the proteins of a FASTA file."""
    entries = list(read_fasta(fasta))
    cut = [sequence[:MAX_RESIDUES].replace("*", "X") for _, sequence in entries]
    vectors = embed(cut, model, layer=layer, batch=batch, max_tokens=MAX_RESIDUES + 2, part=_part_of(out))
    _write(out, [gene for gene, _ in entries], vectors)


@app.command()
def texts(table: Path, model: str, out: Path, *, layer: Layer = -1, batch: int = 32) -> None:
    """A sentence model over descriptions of genes."""
    entries = list(read_descriptions(table))
    written = [text for _, text in entries]
    vectors = embed(written, model, layer=layer, batch=batch, max_tokens=MAX_TEXT_TOKENS, part=_part_of(out))
    _write(out, [gene for gene, _ in entries], vectors)


def embed(texts: Sequence[str], model: str, *, layer: int, batch: int, max_tokens: int, part: Path) -> Vectors:
    """One vector per text, in order. The longest are read first, so too large a batch fails at once.

    ``part``: keeps the vectors as they are made, after a line that says of what; left to the caller to remove.
    """
    from transformers import AutoModel, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModel.from_pretrained(model, use_safetensors=True).eval().to(device)
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    width = network.config.hidden_size
    vectors = np.empty((len(texts), width), np.float32)
    told = [str(model), network.config.to_json_string(), layer, max_tokens, list(texts)]
    head = hashlib.sha256(json.dumps(told).encode()).hexdigest().encode() + b"\n"
    made = _made_so_far(part, head, width)
    vectors[order[: len(made)]] = made
    if len(made):
        typer.echo(f"{part}: {len(made):,} of {len(texts):,} vectors are made, going on", err=True)
    with torch.inference_mode(), part.open("ab") as kept:
        kept.truncate(len(head) + made.nbytes)
        for start in track(range(len(made), len(order), batch), description="embedding"):
            chosen = order[start : start + batch]
            inputs = tokenizer(
                [texts[index] for index in chosen],
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_special_tokens_mask=True,
                return_tensors="pt",
            ).to(device)
            is_residue = (inputs.pop("special_tokens_mask") == 0).unsqueeze(-1)
            hidden = network(**inputs, output_hidden_states=True).hidden_states[layer]
            mean = (hidden * is_residue).sum(dim=1) / is_residue.sum(dim=1).clamp(min=1)
            vectors[chosen] = mean.float().cpu().numpy()
            kept.write(vectors[chosen].tobytes())
            kept.flush()
    return vectors


def _made_so_far(part: Path, head: bytes, width: int) -> Vectors:
    """The whole vectors in the file; a file of something else is begun anew."""
    content = part.read_bytes() if part.is_file() else b""
    if not content.startswith(head):
        part.write_bytes(head)
        content = head
    rows = (len(content) - len(head)) // (4 * width)
    return np.frombuffer(content, np.float32, rows * width, len(head)).reshape(rows, width)


def _part_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def read_fasta(path: Path) -> Iterator[tuple[str, str]]:
    """(gene, sequence) of every entry. Raises ArtifactError if the file does not begin with an entry."""
    gene, parts = "", list[str]()
    with _open_text(path) as lines:
        for line in lines:
            if line.startswith(">"):
                if gene:
                    yield gene, "".join(parts)
                gene, parts = _gene_of(line[1:].strip()), []
            elif not gene and line.strip():
                raise ArtifactError(f"{path}: no FASTA file, it begins with {line[:40]!r}")
            else:
                parts.append(line.strip())
    if gene:
        yield gene, "".join(parts)


def read_descriptions(path: Path) -> Iterator[tuple[str, str]]:
    """(gene, text) of every line with a text. Raises ArtifactError without the two columns."""
    with _open_text(path) as lines:
        header = next(lines, "").rstrip("\n").split("\t")
        if not {"preferred_name", "annotation"} <= set(header):
            raise ArtifactError(f"{path}: expected the columns preferred_name and annotation, found {header}")
        gene, text = header.index("preferred_name"), header.index("annotation")
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if fields[text] not in {"", "annotation not available"}:
                yield fields[gene], fields[text]


def _gene_of(header: str) -> str:
    for pattern in _GENE_OF_HEADER:
        if found := pattern.search(header):
            return found[1]
    return header.split()[0]


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _write(out: Path, genes: Sequence[str], vectors: Vectors) -> None:
    rows: dict[str, list[int]] = {}
    for row, gene in enumerate(genes):
        rows.setdefault(gene, []).append(row)
    symbols, means = mean_per_gene(rows, vectors)
    write_vectors(out, symbols, means)
    _part_of(out).unlink()
    typer.echo(f"{out}: {len(symbols):,} genes, {means.shape[1]} dimensions")


if __name__ == "__main__":
    app()
