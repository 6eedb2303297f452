"""Under the perturbations most similar to this one, how did this gene respond?"""
