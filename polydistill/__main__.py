"""`polydistill` and `python -m polydistill`."""

from __future__ import annotations

import sys


def main() -> None:
    """Loads the command line and runs it; Ctrl-C while it loads is no traceback either."""
    try:
        from polydistill.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
