"""How good a model's answers are on PerturbQA's held-out questions, beside baselines that know nothing of the pair.

A model is whatever answers: a checkpoint, an endpoint, a file of completions, a baseline. Each gives, per question, the
answers that were read off its completions and a belief p of "yes"; everything after that is the same for all.
"""
