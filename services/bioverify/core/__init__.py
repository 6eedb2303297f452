"""Plain values and arithmetic: tasks, answers, outcomes, recipes, rewards. No I/O, no gRPC, no torch."""
