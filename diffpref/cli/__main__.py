"""``python -m diffpref.cli`` is the command ``diffpref``."""

from __future__ import annotations

import sys

from diffpref.cli import main

if __name__ == "__main__":
    sys.exit(main())
