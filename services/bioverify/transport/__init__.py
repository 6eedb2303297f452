"""How two processes of ours speak: channels, refusals, certificates, headers. Knows no message of the contract."""
