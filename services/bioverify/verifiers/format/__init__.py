"""Is the completion in the asked form, and does it name the genes of the question?"""
