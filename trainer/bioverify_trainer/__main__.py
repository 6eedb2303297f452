"""``python -m bioverify_trainer``: the trainer's commands alone, as its image runs them."""

from bioverify_trainer.cli import app

app(prog_name="bioverify")
