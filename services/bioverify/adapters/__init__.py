"""Rewards in the words of training frameworks: thin, over the client. What each can say: docs/adapters.md.

A reward that is missing stays missing as far as the framework can say so: None (TRL), a masked sample (NeMo Gym), a
failed rollout (verifiers). If it knows numbers only (verl, OpenRLHF), a fault that may pass is waited for, and one
that stays ends the call with an error. None of them gets a zero for a fault.

A framework is imported by its own module here alone, so that each needs only its own.
"""
