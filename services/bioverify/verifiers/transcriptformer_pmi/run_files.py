"""Names of the files that `log_ratios` reads and writes, apart from it because only its own environment has torch."""

WEIGHTS_FILE = "model_weights.pt"
RUN_FILE, RATIOS_FILE, GENES_FILE = "run.json", "log_ratios.npy", "genes.json"
