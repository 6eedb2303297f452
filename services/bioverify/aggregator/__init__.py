"""The reward service: asks verifiers in parallel, remembers what they said, composes rewards."""
