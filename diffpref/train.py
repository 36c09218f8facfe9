"""``accelerate launch -m diffpref.train recipe.yaml [--section.field value]``: the same as ``diffpref train``."""

from __future__ import annotations

import sys

from diffpref.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
