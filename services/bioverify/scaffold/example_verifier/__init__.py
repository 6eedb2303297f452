"""example_verifier: a verifier for bioverify."""
