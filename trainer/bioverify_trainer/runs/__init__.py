"""A run on disk: its folder, what it recorded, what is told of it."""
