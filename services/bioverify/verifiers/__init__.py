"""The verifiers: one folder each, with the class that scores, the builder of its artifact, and a README."""
