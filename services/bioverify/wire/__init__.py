"""Between the contract's messages and core's values, in both directions, for servers and clients alike."""
