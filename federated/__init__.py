"""Federated training of the models of `seqnorm`, with a policy for every norm tensor.

Importing this switches off what Flower and Ray would report, ask for or install over the network;
they read these variables when they are imported, which is later. A value that is set already stays.
"""

import os

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # Otherwise `flwr run` makes a new environment for every run.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables with which nothing is reported, asked for or installed over the network."""

for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
