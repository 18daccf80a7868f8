"""A worker process: reads scenes from its input, one per line, and reports on its output.

It answers `keyframe` after each keyframe, `done` after each scene, or an error number and a file name. When its
parent dies, its input ends and so does it; an interrupt from the keyboard is the parent's to handle.
"""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path

from aqr.synth.world import job_from_json, record_scene


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out, device = Path(sys.argv[1]), sys.argv[2]

    def tell(message: str) -> None:
        sys.stdout.write(message + "\n")
        sys.stdout.flush()

    for line in sys.stdin:
        try:
            record_scene(job_from_json(line), out, lambda: tell("keyframe"), device)
        except BrokenPipeError:
            return
        except OSError as error:
            tell(f"{error.errno or errno.EIO} {error.filename or out}")
            return
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is imported only where there is a GPU
                raise
            tell(f"{errno.ENOMEM} {device}")
            return
        tell("done")


if __name__ == "__main__":
    main()
