"""Write ``docs/support_matrix.md`` from what the tests found that train every method on every family.

    pytest tests/methods/test_support_matrix.py --junitxml build/matrix.xml
    python docs/supported.py build/matrix.xml

A cell is full when the method trained three updates there with finite losses and a gradient, went on to the bit from a
checkpoint, and its exported model answers as the trained one does.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

__all__ = ["PAGE", "outcomes", "page"]

PAGE = Path(__file__).with_name("support_matrix.md")
"""What is written."""
TEST = re.compile(r"test_a_method_trains_goes_on_and_exports\[(?P<method>[\w-]+)-(?P<family>\w+)\]")
HEAD = """# Support matrix

Which method trains which family of models, as `tests/methods/test_support_matrix.py` found it at toy size: three
updates with finite losses and a gradient, the same bits after a resume, and an export that answers as the model.
`docs/supported.py` has written this page.
"""


def outcomes(path: Path) -> dict[tuple[str, str], str]:
    """Return (method, family) -> ``"yes"``, ``"fails"``, or why the cell is empty.

    Args:
        path: of the XML that ``pytest --junitxml`` writes.
    """
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = TEST.fullmatch(case.get("name", ""))
        if name is None:
            continue
        skipped = case.find("skipped")
        bad = case.find("failure") is not None or case.find("error") is not None
        reason = "" if skipped is None else skipped.get("message", "not run")
        found[name["method"], name["family"]] = "fails" if bad else reason or "yes"
    return found


def page(found: Mapping[tuple[str, str], str]) -> str:
    """Return the page: a row a method, a column a family, and below why cells are empty.

    Raises:
        ValueError: nothing was found.
    """
    if not found:
        raise ValueError("no test of the matrix in this file; run tests/methods/test_support_matrix.py")
    families = list(dict.fromkeys(family for _, family in found))
    notes: dict[str, int] = {}
    rows = [
        "| method | " + " | ".join(f"`{family}`" for family in families) + " |",
        "| --- " * (len(families) + 1) + "|",
    ]
    for method in dict.fromkeys(method for method, _ in found):
        cells = [found.get((method, family), "not run") for family in families]
        shown = [c if c in ("yes", "fails") else f"- ({notes.setdefault(c, len(notes) + 1)})" for c in cells]
        rows.append(f"| `{method}` | " + " | ".join(shown) + " |")
    below = [f"({number}) {reason}." for reason, number in notes.items()]
    return "\n".join([HEAD, *rows, "", *below]).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(outcomes(Path(sys.argv[1]))), encoding="utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes")
