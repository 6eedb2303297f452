"""Versioned inputs of the verifiers: where source files come from, how artifacts are stored and opened."""
