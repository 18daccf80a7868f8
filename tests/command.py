"""The command line in processes that are forked from one which has imported everything, so that each starts at once."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["aqr.training", "aqr.cli"])


def aqr(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """What `aqr` with these arguments says, and its exit code."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("out", "err")]
        process = SERVER.Process(target=_call, args=(words, *said))
        process.start()
        process.join(240)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"aqr {' '.join(words)} did not end")
        return subprocess.CompletedProcess(words, process.exitcode or 0, *(path.read_text() for path in said))


def _call(words: list[str], out: Path, err: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["aqr", *words]
    from aqr.cli import main

    main()
