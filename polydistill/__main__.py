"""`polydistill` and `python -m polydistill`."""

from __future__ import annotations

import sys


def main() -> None:
    """Loads the command line and runs it; Ctrl-C while it loads is no traceback either."""
    try:
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


if __name__ == "__main__":
    main()
