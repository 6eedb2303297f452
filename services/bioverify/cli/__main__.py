"""`python -m bioverify.cli`, for where the `bioverify` script is not on the path."""

from bioverify.cli import app

app(prog_name="bioverify")
