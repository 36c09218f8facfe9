"""Generation killed anywhere, on one process or two: the same bytes, and nothing that was finished is made again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from diffpref.data import read_store


@pytest.mark.slow
def test_row_37_twenty_kills_on_one_and_two_processes_give_the_content_of_a_run_that_was_left_alone(tmp_path):
    driver = Path(__file__).with_name("kill_driver.py")
    ran = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "0", "20"], check=True, capture_output=True, text=True, timeout=170
    )
    whole, *killed = json.loads(ran.stdout)
    expected = {path.name: path.read_bytes() for path in Path(whole["folder"]).iterdir()}
    assert sum(len(record.candidates) for record in read_store(whole["folder"])) == 200
    for processes in (1, 2):
        assert sum(trial["kills"] for trial in killed if trial["processes"] == processes) >= 20
    for trial in killed:
        assert set(trial["codes"]) == {0}
        assert {path.name: path.read_bytes() for path in Path(trial["folder"]).iterdir()} == expected
        # a unit that was there is never begun again, and a kill wastes at most the one unit of its process
        assert not any(begun["there"] for begun in trial["drawn"])
        begun = Counter(begun["unit"] for begun in trial["drawn"])
        assert set(begun) == set(range(10)) and begun.total() <= 10 + trial["kills"]
