"""`polydistill` and `python -m polydistill`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Loads the command line and runs it; Ctrl-C while it loads is no traceback either."""
    try:
        _open_closed()
        from polydistill import interrupts

        interrupts.install()
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        with interrupts.held():
            from polydistill.cli import main as run
        run()
        code = 0
    except BaseException as error:
        stopped = interrupts.exit_code()
        if stopped is None and not isinstance(error, SystemExit):
            raise
        if stopped is not None:
            interrupts.say()
        code = stopped or int(getattr(error, "code", 0) or 0)
    interrupts.end(code)


def _open_closed() -> None:
    """Opens standard streams that the caller has closed (`>&-`) on nothing, lest another file takes their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


if __name__ == "__main__":
    main()
