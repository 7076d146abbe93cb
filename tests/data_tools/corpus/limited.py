"""Do a job in a child of limited memory and time: what it gave, what it raised, how it died.

Run as ``python limited.py``, it reads every case of `genomes` in a folder of its own and prints
what came of each, as JSON.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

MEMORY = 3 << 29
SECONDS = 60


def in_child(job):
    """Fork, limit, and give what the child found: a JSON value under ``gave``, or a fault."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(SECONDS)
        if not os.getuid():
            # Root may read everything; nobody may not.
            os.setuid(65534)
        try:
            found = {"gave": job()}
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            found = {"raised": kinds, "says": str(error), "trace": traceback.format_exc()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        with os.fdopen(theirs, "w") as stream:
            json.dump(found | {"peak": peak}, stream)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        text = stream.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else {"died": os.waitstatus_to_exitcode(status)}


def main():
    """Build and read all cases; a folder that others may enter, so that permissions count."""
    from corpus import genomes

    import data_tools.genome  # noqa: F401 - loaded once, before the children are forked

    found = {}
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: PTH101
        for number, case in enumerate(genomes.CASES):
            folder = Path(name) / str(number)
            folder.mkdir()
            os.environ["SEQNORM_CACHE"] = str(folder / "cache")
            path = case.build(folder)
            before = sorted(p.name for p in folder.iterdir())
            found[case.name] = in_child(lambda path=path: genomes.read(path))
            after = sorted(p.name for p in folder.iterdir() if p.name != "cache")
            found[case.name]["path"] = str(path)
            found[case.name]["left"] = [name for name in after if name not in before]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    main()
