"""What the aggregator does when a verifier is slow, gone or overloaded: one policy a module, none of which knows gRPC.

Own code throughout, because each is a page long and none of the kept libraries fits: their breakers let every waiting
call through at the first sign of life and cannot be told by a probe; their limiters count calls over time and not items
in flight; their retries know no budget that calls share. docs/reliability.md has the defaults and their reasons.
"""
