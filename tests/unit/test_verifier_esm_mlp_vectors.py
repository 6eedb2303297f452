"""Where gene vectors come from: files of all accepted forms, and the language models that make them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import EsmConfig, EsmModel, EsmTokenizer
from typer.testing import CliRunner

from bioverify.artifacts.cells import read_h5ad
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.matrix import guess_columns
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.verifiers.esm_mlp import embed
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors, beside, read_vectors, write_vectors
from bioverify.verifiers.esm_mlp.knowledge import read_sources
from tests.fixtures.artifacts import data_folder

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def write_h5(path: Path, names: list[str], vectors: np.ndarray) -> None:
    """As TranscriptFormer writes its protein embeddings."""
    with h5py.File(path, "w") as file:
        file.create_dataset("keys", data=np.array(names, dtype="S"))
        arrays = file.create_group("arrays")
        for name, vector in zip(names, vectors, strict=True):
            arrays.create_dataset(name, data=vector)


@pytest.mark.parametrize("form", ["h5", "npz", "parquet", "safetensors"])
def test_every_accepted_form_reads_the_same(form: str, tmp_path: Path) -> None:
    path, names = tmp_path / f"table.{form}", ["AARS1", "ASNS", "EIF2B4"]
    match form:
        case "h5":
            write_h5(path, names, VECTORS)
        case "npz":
            np.savez(path, symbols=np.array(names), vectors=VECTORS)
        case "parquet":
            pq.write_table(pa.table({"symbol": names, "vector": VECTORS.tolist()}), path)
        case _:
            write_vectors(path, names, VECTORS)
    found, vectors = read_vectors(path)
    assert found == names
    assert (vectors == VECTORS).all()


def test_names_of_bytes_or_numbers_are_texts_and_one_that_says_nothing_is_no_gene(tmp_path: Path) -> None:
    np.savez(tmp_path / "bytes.npz", symbols=np.array([b"AARS1", b"nan", b"ASNS"]), vectors=VECTORS)
    assert read_vectors(tmp_path / "bytes.npz")[0] == ["AARS1", "", "ASNS"]
    np.savez(tmp_path / "numbers.NPZ", symbols=np.array([16, 440, 8892]), vectors=VECTORS)
    (tmp_path / "numbers.NPZ.npz").rename(tmp_path / "numbers.NPZ")
    assert read_vectors(tmp_path / "numbers.NPZ")[0] == ["16", "440", "8892"]
    pq.write_table(pa.table({"symbol": ["AARS1", None, "ASNS"], "vector": VECTORS.tolist()}), tmp_path / "null.parquet")
    assert read_vectors(tmp_path / "null.parquet")[0] == ["AARS1", "", "ASNS"]


@pytest.mark.parametrize("ending", ["h5", "npz", "parquet", "safetensors", "txt"])
@pytest.mark.parametrize("cut", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_is_one_sentence(tmp_path: Path, ending: str, cut: float) -> None:
    path, names = tmp_path / f"table.{ending}", ["AARS1", "ASNS", "EIF2B4"]
    match ending:
        case "h5":
            write_h5(path, names, VECTORS)
        case "npz":
            np.savez(path, symbols=np.array(names), vectors=VECTORS)
        case "parquet":
            pq.write_table(pa.table({"symbol": names, "vector": VECTORS.tolist()}), path)
        case _:
            write_vectors(path, names, VECTORS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ArtifactError) as refused:
        read_vectors(path)
    assert "\n" not in str(refused.value)


def test_names_are_resolved_and_the_file_enters_the_manifest(bundled_store: ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "homo_sapiens_gene.h5"
    write_h5(path, ["ENSG00000070669", "AARS", "NOSUCHGENE"], VECTORS)
    resolver, _ = open_genes(bundled_store)
    sources = Sources(mirror=None, cache=tmp_path, offline=True, explicit={"gene_vectors.ESM2-3B": path})
    (table,), (record,) = read_sources(sources, resolver, progress=lambda _said: None)
    assert (table.name, table.symbols) == ("ESM2-3B", ["ASNS", "AARS1"])
    assert record.sha256
    assert record.kind == "explicit"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("table.txt", b"", "expected .h5, .npz"),
        ("table.npz", b"no zip", "not in the form"),
        ("table.h5", b"no hdf", "not in the form"),
        ("table.safetensors", b"no tensors", "not in the form"),
    ],
)
def test_a_file_of_another_form_is_refused(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=said):
        read_vectors(tmp_path / name)


def test_tables_are_put_beside_one_another_with_zeros_for_gaps() -> None:
    random = np.random.default_rng(0)
    one = GeneVectors("one", ["A", "B", "C"], random.standard_normal((3, 4)).astype(np.float32))
    other = GeneVectors("other", ["B", "D", "E"], random.standard_normal((3, 9)).astype(np.float32))
    together = beside([one, other], [3.0, 0.75])
    assert together.name == "one + other"
    assert together.symbols == ["A", "B", "C", "D", "E"]
    lengths = [np.linalg.norm(part) for part in (together.vectors[1, :4], together.vectors[1, 4:])]
    assert lengths[0] == pytest.approx(2 * lengths[1])  # √weight, whatever the number of dimensions
    assert sum(length**2 for length in lengths) == pytest.approx(13)  # mean square 1
    assert np.linalg.norm(beside([one]).vectors[0]) == pytest.approx(2.0)
    assert not together.vectors[0, 4:].any()


def tiny_esm(folder: Path) -> tuple[EsmModel, EsmTokenizer]:
    """The real architecture with random weights, saved in the folder."""
    folder.mkdir()
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    tokenizer = EsmTokenizer(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=len(tokens), mask_token_id=len(tokens) - 1, pad_token_id=1, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=1026, position_embedding_type="rotary",
    )  # fmt: skip
    model = EsmModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_esm_vectors_are_the_mean_over_residues_alone(tmp_path: Path) -> None:
    folder, fasta, out = tmp_path / "esm", tmp_path / "proteins.fa", tmp_path / "out.safetensors"
    model, tokenizer = tiny_esm(folder)
    asns, other = ">ENSP1 pep gene:ENSG00000070669.17 gene_symbol:ASNS", ">ENSP2 gene_symbol:ASNS"
    fasta.write_text(f"{asns}\nMKV\nLLA\n>sp|P1|X GN=AARS1\nMMWQ\n{other}\nMK\n")
    result = CliRunner().invoke(embed.app, ["proteins", str(fasta), str(folder), str(out), "--layer", "1"])
    assert result.exit_code == 0, result.output
    names, vectors = read_vectors(out)
    assert names == ["ASNS", "AARS1"]

    def slow(sequence: str) -> np.ndarray:
        with torch.inference_mode():
            hidden = model(**tokenizer(sequence, return_tensors="pt"), output_hidden_states=True).hidden_states[1]
        mean: np.ndarray = hidden[0, 1 : 1 + len(sequence)].mean(dim=0).numpy()
        return mean

    assert vectors[1] == pytest.approx(slow("MMWQ"), abs=1e-5)
    assert vectors[0] == pytest.approx((slow("MKVLLA") + slow("MK")) / 2, abs=1e-5)


def test_real_proteins_are_read_as_far_as_the_model_can_see(tmp_path: Path) -> None:
    source = data_folder() / "sequences" / "human_protein_seq_by_symbol.SHS148k.json.gz"
    if not source.is_file():
        pytest.skip(f"needs the real proteins: no {source}")
    sequences = sorted(json.loads(gzip.decompress(source.read_bytes())).items(), key=lambda one: (len(one[1]), one[0]))
    asked = dict([*sequences[:2], sequences[len(sequences) // 2], sequences[-1]])
    folder, fasta, out = tmp_path / "esm", tmp_path / "proteins.fa.gz", tmp_path / "out.safetensors"
    tiny_esm(folder)
    cut = {f"CUT-{gene}": sequence[: embed.MAX_RESIDUES] for gene, sequence in asked.items()}
    entries = [f">{gene}\n{sequence}\n" for gene, sequence in (asked | cut).items()]
    fasta.write_bytes(gzip.compress("".join(entries).encode()))
    result = CliRunner().invoke(embed.app, ["proteins", str(fasta), str(folder), str(out), "--batch", "2"])
    assert result.exit_code == 0, result.output
    names, vectors = read_vectors(out)
    assert names == [*asked, *cut]
    assert vectors[: len(asked)] == pytest.approx(vectors[len(asked) :], abs=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == len(asked)
    assert max(map(len, asked.values())) > embed.MAX_RESIDUES


def test_embedding_goes_on_after_the_last_whole_vector_and_begins_anew_for_other_proteins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fasta, out = tmp_path / "esm", tmp_path / "proteins.fa", tmp_path / "out.safetensors"
    tiny_esm(folder)
    genes = ["TP53", "ASNS", "MYC", "AARS1", "CDKN1A"]
    fasta.write_text("".join(f">x GN={gene}\n{'MKVLAG'[: 6 - number]}\n" for number, gene in enumerate(genes)))
    part, asked = tmp_path / "out.safetensors.part", ["proteins", str(fasta), str(folder), str(out), "--batch", "1"]
    whole = CliRunner().invoke(embed.app, asked)
    assert whole.exit_code == 0, whole.output
    assert not part.exists()
    expected = read_vectors(out)
    out.unlink()
    forward, n_read, stop_after = EsmModel.forward, 0, 3

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal n_read
        if n_read == stop_after:
            raise KeyboardInterrupt
        n_read += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(EsmModel, "forward", counted)
    assert CliRunner().invoke(embed.app, asked).exit_code != 0
    assert not out.exists()
    with part.open("ab") as file:
        file.write(b"half")  # of a vector
    n_read, stop_after = 0, 99
    again = CliRunner().invoke(embed.app, asked)
    assert again.exit_code == 0, again.output
    assert n_read == 2
    names, vectors = read_vectors(out)
    assert (names, vectors.tolist()) == (expected[0], expected[1].tolist())
    part.write_bytes(b"of something else\n" + bytes(64))
    n_read = 0
    assert CliRunner().invoke(embed.app, asked).exit_code == 0
    assert n_read == 5
    assert read_vectors(out)[1].tolist() == expected[1].tolist()


def test_descriptions_are_read_as_string_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "info.txt"
    header, known, unknown = "#id\tpreferred_name\tannotation", "1\tASNS\tMakes it.", "2\tX\tannotation not available"
    table.write_text(f"{header}\n{known}\n{unknown}\n")
    assert list(embed.read_descriptions(table)) == [("ASNS", "Makes it.")]
    table.write_text(json.dumps({}))
    with pytest.raises(ArtifactError, match="expected the columns"):
        list(embed.read_descriptions(table))


def laid_elsewhere(how: str, other: Path, file: h5py.File, name: str) -> None:
    """A data set of ``file`` whose numbers lie in ``other``, as HDF5 allows in three ways, and once behind a link."""
    if how == "storage":
        file.create_dataset(name, (4,), "f4", external=[(str(other), 0, 16)])
    elif how == "virtual":
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(other), "numbers", (4,))
        file.create_virtual_dataset(name, layout)
    elif how == "link":
        file[name] = h5py.ExternalLink(str(other), "numbers")
    else:
        file["there"] = h5py.ExternalLink(str(other), "/")
        file[name] = h5py.SoftLink("/there/numbers")


@pytest.mark.parametrize("how", ["storage", "virtual", "link", "link behind a link"])
def test_a_file_that_would_read_the_builders_other_files_is_refused(how: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["numbers"] = np.arange(4, dtype=np.float32)
    path = tmp_path / "sent.h5"
    write_h5(path, ["AARS1"], VECTORS[:1])
    with h5py.File(path, "a") as file:
        del file["arrays/AARS1"]
        laid_elsewhere(how, tmp_path / "other.h5", file, "arrays/AARS1")
        assert file["arrays/AARS1"].shape == (4,), "HDF5 itself would read it"
    with pytest.raises(ArtifactError, match=r"sent\.h5: keeps '(arrays/AARS1|there)' in another file") as refused:
        read_vectors(path)
    assert "Write it into this one" in str(refused.value)


@pytest.mark.parametrize("read", [read_h5ad, guess_columns])
def test_cells_and_screens_are_held_to_their_own_file_too(read: Callable[[Path], object], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["numbers"] = np.zeros((2, 2), np.float32)
    cells = anndata.AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame(index=["a", "b"]))
    cells.write_h5ad(tmp_path / "sent.h5ad")
    with h5py.File(tmp_path / "sent.h5ad", "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "numbers")
    with pytest.raises(ArtifactError, match="keeps 'X' in another file"):
        read(tmp_path / "sent.h5ad")
