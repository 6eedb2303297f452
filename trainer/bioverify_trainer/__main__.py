"""``python -m bioverify_trainer``."""

from bioverify_trainer.cli import app

app(prog_name="python -m bioverify_trainer")
