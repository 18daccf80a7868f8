"""Processes that are forked from one which has imported everything, so that each starts at once."""

import json
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["aqr.training"])


@dataclass
class Ended:
    """How the processes of a run ended."""

    codes: list[int | None]
    said: str


def start(function: Callable[[dict[str, Any], dict[str, str]], None], options: dict[str, Any], ranks: int) -> Ended:
    """Run `function(options, environment)` on a number of ranks; what they say goes to the file `options["output"]`."""
    output = Path(options["output"])
    options = json.loads(json.dumps(options, default=str))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    environments = [address | {"LOCAL_RANK": str(r), "NODE_RANK": "0"} if ranks > 1 else {} for r in range(ranks)]
    processes = [SERVER.Process(target=function, args=(options, environment)) for environment in environments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    said = output.read_text()
    output.unlink()
    return Ended([process.exitcode for process in processes], said)
