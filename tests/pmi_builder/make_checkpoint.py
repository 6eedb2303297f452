"""Writes a checkpoint folder as TranscriptFormer publishes them, with random weights: the real class at any size.

``python -m tests.pmi_builder.make_checkpoint OUT GENE,GENE,… [real]`` in the builder's environment. "real" is the size
of TF-Sapiens (368 million trained parameters), whose gene names are then filled up to its vocabulary of 23,829.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from transcriptformer.data.dataclasses import DataConfig, LossConfig, ModelConfig
from transcriptformer.model.model import Transcriptformer
from transcriptformer.tokenizer.vocab import SPECIAL_TOKENS, construct_gene_embeddings

TINY = {"num_heads": 2, "num_layers": 2, "model_dim": 32, "embed_dim": 16, "seq_len": 15, "block_len": 16}
REAL = {"num_heads": 16, "num_layers": 12, "model_dim": 2048, "embed_dim": 2048, "seq_len": 2047, "block_len": 128}
REAL_VOCABULARY, REAL_PROTEIN_DIMENSIONS = 23_829, 2560


def make(out: Path, genes: list[str], *, real: bool) -> None:
    torch.manual_seed(0)
    dimensions = REAL_PROTEIN_DIMENSIONS if real else 12
    if real:
        genes = [
            *genes,
            *(f"ENSG{number:011d}" for number in range(REAL_VOCABULARY - len(SPECIAL_TOKENS) - len(genes))),
        ]
    vocabs = out / "vocabs"
    vocabs.mkdir(parents=True)
    proteins = np.random.default_rng(0).normal(size=(len(genes), dimensions)).astype(np.float32)
    with h5py.File(vocabs / "homo_sapiens_gene.h5", "w") as file:
        file.create_dataset("keys", data=np.array(genes, dtype="S"))
        arrays = file.create_group("arrays")
        for gene, vector in zip(genes, proteins, strict=True):
            arrays.create_dataset(gene, data=vector)
    assays = {"unknown": 0, "10x 3' v3": 1, "Smart-seq2": 2}
    (vocabs / "assay_vocab.json").write_text(json.dumps(assays))
    model_config = {
        **(REAL if real else TINY),
        "gene_head_hidden_dim": 2048 if real else 24,
        "log_counts_eps": 1e-6,
        "dropout": 0.1,
        "activation": "gelu",
        "attn_bias": False,
        "fw_bias": False,
        "mu_link_fn": "softmax",
        "softcap": 10,
        "aux_len": 1,
        "compile_block_mask": True,
    }
    data_config = {
        "_target_": "transcriptformer.data.dataclasses.DataConfig",
        "aux_vocab_path": None,
        "aux_cols": "assay",
        "clip_counts": None,
        "gene_pad_token": "[PAD]",
        "esm2_mappings": ["homo_sapiens_gene.h5"],
        "special_tokens": SPECIAL_TOKENS,
    }
    loss_config = {"gene_id_loss_weight": 1.0}
    sections = {"data_config": data_config, "model_config": model_config, "loss_config": loss_config}
    (out / "config.json").write_text(json.dumps({"model": sections}))
    vocabulary, embeddings = construct_gene_embeddings([str(vocabs / "homo_sapiens_gene.h5")], SPECIAL_TOKENS)
    rest = dict.fromkeys(DataConfig.__dataclass_fields__)
    model = Transcriptformer(
        DataConfig(**{**rest, **{name: value for name, value in data_config.items() if name != "_target_"}}),
        ModelConfig(**model_config),
        LossConfig(**loss_config),
        gene_vocab_dict=vocabulary,
        aux_vocab_dict={"assay": assays},
        emb_matrix=torch.from_numpy(embeddings),
    )
    if not real:
        # As they come, logits of random weights hardly differ, and the soft cap would never bite.
        with torch.no_grad():
            model.gene_id_head.layers[-1].weight.mul_(40.0)
    torch.save(model.state_dict(), out / "model_weights.pt")


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2].split(","), real=sys.argv[3:] == ["real"])
