"""The app, but client-0 does in round 2 what a file in the run's folder says."""

import os
import signal
import time
from pathlib import Path

from federated.client_app import app as honest
from federated.messages import read_order


def app(message, context):
    first = context.node_config.get("partition-id") == 0
    if message.metadata.message_type == "train" and first and read_order(message)[0] == 2:
        will = Path(context.run_config["folder"], "client-0-will").read_text()
        if will == "hang":
            time.sleep(60)
        if will == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("the disk of this client is broken")
    return honest(message, context)
