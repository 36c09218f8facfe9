"""Starting is quick, because nothing heavy is imported before it is needed. benchmarks/startup.py prints the times."""

from __future__ import annotations

import subprocess
import sys
import time

LOADED = "import sys; print(*sorted(m for m in sys.modules if '.' not in m))"
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "datasets", "pydantic", "tyro", "yaml", "numpy", "rich"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy_and_is_quick() -> None:
    seconds, loaded = run(
        "import time; start = time.perf_counter(); import diffpref; print(time.perf_counter() - start); " + LOADED
    ).split("\n", 1)
    assert set(loaded.split()) & HEAVY == set()
    assert float(seconds) < 3 * 0.3


def test_the_help_imports_nothing_heavy_and_is_quick() -> None:
    start = time.perf_counter()
    output = run("from diffpref.cli import main; main(['--help']); " + LOADED)
    seconds = time.perf_counter() - start
    assert "usage: diffpref" in output
    assert set(output.splitlines()[-1].split()) & HEAVY == set()
    assert seconds < 3 * 0.5


def test_the_help_of_training_needs_no_model_library() -> None:
    output = run(
        "from diffpref.config import parse_recipe_cli\n"
        "try: parse_recipe_cli(['--help'])\n"
        "except SystemExit: pass\n" + LOADED
    )
    assert set(output.splitlines()[-1].split()) & {"torch", "diffusers", "transformers"} == set()


def test_names_of_the_package_are_found_on_use() -> None:
    import diffpref

    assert diffpref.load_recipe is diffpref.config.load_recipe  # type: ignore[attr-defined]
    assert diffpref.objectives.__name__ == "diffpref.objectives"
    assert set(diffpref.__all__) <= set(dir(diffpref))
    assert not hasattr(diffpref, "objectivs")
