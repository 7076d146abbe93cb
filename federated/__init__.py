"""Federated training of the models of `seqnorm`, with a policy for every norm tensor."""
