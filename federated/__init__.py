"""Federated training of the models of `seqnorm`: not built yet.

The package is reserved in the distribution; ``docs/dev/roadmap.md`` says what it will hold.
"""
