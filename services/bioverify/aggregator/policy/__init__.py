"""What the aggregator does when a verifier is slow, gone or overloaded: one policy a module, none of which knows gRPC.

Own code throughout, because each is a page long and none of the kept libraries fits: their breakers let every waiting
call through at the first sign of life and cannot be told by a probe; their rate limiters count time and not calls;
their retries know neither a budget nor the call's deadline; and none counts items.
"""
