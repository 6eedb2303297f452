"""What hosts a verifier as a service: server, health, limits, metrics, logs, shutdown."""
