"""How long a user waits before anything happens: ``python benchmarks/startup.py``.

Limits: ``import diffpref`` 0.3 s, ``diffpref --help`` 0.5 s (medians; the second with the interpreter's start).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

IMPORT = "import time; start = time.perf_counter(); import diffpref; print(time.perf_counter() - start)"
LIMITS = {"import diffpref": 0.3, "diffpref --help": 0.5}


def import_seconds() -> float:
    """Return the seconds that the import itself takes in a new interpreter."""
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)


def help_seconds() -> float:
    """Return the seconds from starting the command to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "diffpref", "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians beside their limits."""
    parser = argparse.ArgumentParser(description="Time the start of diffpref.")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measure = {"import diffpref": import_seconds, "diffpref --help": help_seconds}
    medians = {
        name: statistics.median(function() for _ in range(arguments.repeats)) for name, function in measure.items()
    }
    if arguments.json:
        print(json.dumps(medians, indent=1))
        return
    print(f"{'':18} {'seconds':>8} {'limit':>6}")
    for name, seconds in medians.items():
        print(f"{name:18} {seconds:8.3f} {LIMITS[name]:6.1f}")


if __name__ == "__main__":
    main()
