"""``diffpref index``: what it lists is compared from then on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffpref.cli import main
from diffpref.core.errors import DataError
from diffpref.data import open_records


def table(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    rows = [{"prompt": "p", "chosen": "a.png", "rejected": "b.png"} for _ in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_lists_a_source_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path)
    assert main(["index", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 files, 3 rows, {path.stat().st_size} bytes listed in index.json\n"
    assert main(["index", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["file"], entry["num_rows"]) == ("pairs.jsonl", 3)
    assert len(open_records(tmp_path)) == 3


def test_a_changed_file_is_noticed_afterwards(tmp_path: Path) -> None:
    path = table(tmp_path)
    main(["index", str(tmp_path)])
    path.write_text(path.read_text().replace("a.png", "c.png"))
    with pytest.raises(DataError, match=r"pairs\.jsonl: its checksum differs from the index's"):
        open_records(tmp_path)


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == f"diffpref: {tmp_path}/nothing: no such file or folder\n"
