"""The same ratios, slowly: one gene at a time, padded to whole attention blocks, softmax by hand in double precision.

``python -m tests.pmi_builder.reference CHECKPOINT ASSAY COUNT OUT.npy`` in the builder's environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transcriptformer.data.dataclasses import BatchData, DataConfig, LossConfig, ModelConfig
from transcriptformer.model.model import Transcriptformer
from transcriptformer.tokenizer.vocab import construct_gene_embeddings


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    capped = 10.0 * np.tanh(logits.astype(np.float64) / 10.0)
    return np.asarray(capped - np.log(np.exp(capped).sum()))


def main(checkpoint: Path, assay: str, count: float, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())["model"]
    special = config["data_config"]["special_tokens"]
    vocabulary, embeddings = construct_gene_embeddings([str(checkpoint / "vocabs/homo_sapiens_gene.h5")], special)
    assays = json.loads((checkpoint / "vocabs/assay_vocab.json").read_text())
    settings = {**config["model_config"], "compile_block_mask": False}
    model = Transcriptformer(
        DataConfig(**dict.fromkeys(DataConfig.__dataclass_fields__)),
        ModelConfig(**settings),
        LossConfig(**config["loss_config"]),
        gene_vocab_dict=vocabulary,
        aux_vocab_dict={"assay": assays},
        emb_matrix=torch.from_numpy(embeddings),
    ).eval()
    model.load_state_dict(torch.load(checkpoint / "model_weights.pt", weights_only=True))
    genes = [token for name, token in vocabulary.items() if name not in special]
    rows = []
    for gene in genes:
        tokens = torch.full((1, settings["seq_len"]), vocabulary["[PAD]"])
        counts = torch.zeros(1, settings["seq_len"])
        tokens[0, 0], counts[0, 0] = gene, count
        with torch.no_grad():
            logits = model(BatchData(counts, tokens, torch.tensor([[assays[assay]]])), embed=False)["gene_logit"][0]
        alone, after = (log_probabilities(logits[position].numpy())[genes] for position in (0, 1))
        rows.append(after - alone)
    np.save(out, np.stack(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
