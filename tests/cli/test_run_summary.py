"""The summary at the end of a run: means of its beginning and its end, a table on a terminal, plain text in a pipe."""

from __future__ import annotations

import io

import pytest

from diffpref.cli._run_summary import print_run_summary, summary_rows

ROWS = [
    {
        "step": step,
        "loss": 1.0 / step,
        "rewards/accuracies": 0.5,
        "perf/images_per_second": 2.0,
        "perf/memory_bytes": 2**30 * step,
        **({"eval/hps": step / 10} if step % 25 == 0 else {}),
    }
    for step in range(1, 101)
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_compares_the_first_lines_with_the_last() -> None:
    rows = {what: (begin, end) for what, begin, end in summary_rows(ROWS)}
    means = [sum(row["loss"] for row in part) / 20 for part in (ROWS[:20], ROWS[-20:])]
    assert rows["loss"] == tuple(f"{mean:.4g}" for mean in means)
    assert rows["validation: hps"] == ("2.5", "10")
    assert rows["memory, most"] == ("", "100.00 GiB")
    assert "gradient norm" not in rows  # nothing was logged of it


def test_a_pipe_gets_plain_text_and_a_terminal_a_table() -> None:
    plain, terminal = io.StringIO(), Terminal()
    for file in (plain, terminal):
        print_run_summary(ROWS, ["the result is in runs/x"], file)
    assert plain.getvalue().isascii() and "\x1b" not in plain.getvalue()
    assert (
        len({line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in plain.getvalue().splitlines()[:-1]}) == 1
    )
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in terminal.getvalue()
    for text in (plain.getvalue(), terminal.getvalue()):
        assert "accuracy (chosen above rejected)" in text and text.splitlines()[-1] == "the result is in runs/x"


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_a_run_without_a_log_has_its_lines_only(file: io.StringIO) -> None:
    print_run_summary([], ["nothing to do"], file)
    assert file.getvalue() == "nothing to do\n"
