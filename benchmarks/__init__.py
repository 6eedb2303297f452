"""How fast it is: reproducible, several runs, ratios side by side in one run, JSON and Markdown out."""
