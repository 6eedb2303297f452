"""Plain values and arithmetic: tasks, answers, outcomes, recipes, rewards. No I/O, no gRPC, no torch."""

DEFAULT_RECIPE = "all"
"""What rewards are composed by if nobody says, at every door."""
