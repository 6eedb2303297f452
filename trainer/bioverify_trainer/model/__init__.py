"""The policy: opened, checked, and made to write."""
