"""Files of completions: read line by line or as tables, scored once, kept, and scored again."""
