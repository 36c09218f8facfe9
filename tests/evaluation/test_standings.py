"""Every number of an evaluation: literal values, the invariants of win rates, and results.json there and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.evaluation import Column, Standings, make_table
from diffpref.evaluation.independence import independence_warnings
from diffpref.evaluation.sheets import make_sheets

BASE = (0.2, 0.6, 0.2, 0.4, 0.9, 0.0)
OURS = (0.3, 0.5, 0.2, 0.7, 0.7, 0.1)


def standings(**changes):
    columns = {
        "base": Column({"a": BASE, "b": (1.0,) * 6}, {"red": (True,) * 3 + (False,) * 3, "round": (True,) * 6}),
        "ours": Column(
            {"a": OURS, "b": (2.0, None, 1.0, 0.0, 0.0, 3.0)},
            {"red": (True,) * 6, "round": (True,) * 5 + (False,)},
            {"saturation": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)},
            {"prediction drift": 0.25},
            source="the run",
            digest="d",
            labelled_by=("a",),
        ),
    }
    given = {
        "prompts": ("p", "p", "q", "r", "s", "t"),
        "seeds": (1, 2, 3, 4, 5, 6),
        "columns": columns,
        "judges": {"a": "v1", "b": "v2"},
        "categories": {"style": (("x",), ("x",), ("x", "y"), ("y",), ("y",), ())},
        "num_draws": 200,
    }
    return Standings(**{**given, **changes})


def test_win_rates_and_shares_have_the_counted_values():
    table = make_table(standings())
    facts, a, b = table.of("ours")
    assert (a.win.wins, a.win.ties, a.win.losses, a.win.rate) == (3, 1, 2, pytest.approx(3.5 / 6))
    assert a.wilson.low == pytest.approx(0.241078211) and a.wilson.high == pytest.approx(0.860532741)
    assert (a.mean, a.median, a.win.sign_test_p) == (pytest.approx(2.5 / 6), 0.4, 1.0)
    assert (a.mean_difference.estimate, a.median_difference.estimate) == (
        pytest.approx(0.2 / 6),
        pytest.approx(0.05),
    )
    assert (b.count, b.not_finite, b.win.wins, b.win.ties, b.win.losses, b.win.dropped) == (5, 1, 2, 1, 2, 1)
    assert (facts.measure, facts.mean) == ("facts right", 11 / 6)
    shares = {(share.contender, share.fact): share for share in table.shares}
    assert shares["ours", "all facts right"].share == pytest.approx(5 / 6)
    assert shares["ours", "red"].difference.estimate == pytest.approx(50.0)
    assert table.of("base")[1].win is None and shares["base", "red"].difference is None


def test_ties_can_count_as_losses():
    a = make_table(standings(ties="loss")).of("ours")[1]
    assert (a.win.rate, a.win.ties, a.wilson.estimate) == (0.5, 1, 0.5)


def test_categories_hold_the_win_rate_of_their_prompts():
    a = make_table(standings()).of("ours")[1].categories["style"]
    assert {label: (win.wins, win.ties, win.losses) for label, win in a.items()} == {"x": (1, 1, 1), "y": (1, 1, 1)}


def test_means_by_category_leave_out_what_is_not_finite_and_their_mean_counts_each_label_once():
    table = make_table(standings())
    (_, a, b), base = table.of("ours"), table.of("base")[1]
    assert a.means["style"] == pytest.approx({"x": (OURS[0] + OURS[1] + OURS[2]) / 3, "y": sum(OURS[2:5]) / 3})
    assert b.means["style"] == pytest.approx({"x": 1.5, "y": 1 / 3}) and set(base.means["style"]) == {"x", "y"}
    sheet = next(one for one in make_sheets(standings(), table) if one.title == "Means by style")
    assert sheet.heads == ("style", "pictures", "contender", "facts right", "a", "b")
    assert sheet.rows[-1][:3] == ("mean of the above", "", "ours")
    assert float(sheet.rows[-1][5]) == pytest.approx((1.5 + 1 / 3) / 2, abs=1e-3)


def test_macro_average_is_the_mean_of_the_win_rates_where_every_judge_scored():
    (macro,) = make_table(standings()).macros
    rates = [(1 + 0.5 + 1 + 0 + 1) / 5, (1 + 0.5 + 0 + 0 + 1) / 5]
    assert (macro.contender, macro.count, macro.rate.estimate) == ("ours", 5, pytest.approx(sum(rates) / 2))


def test_a_model_against_itself_is_even_exactly():
    table = make_table(
        standings(columns={"base": Column({"a": BASE, "b": BASE}), "same": Column({"a": BASE, "b": BASE})})
    )
    for entry in table.of("same"):
        assert (entry.win.rate, entry.win.low, entry.win.high, entry.win.sign_test_p) == (0.5, 0.5, 0.5, 1.0)
        assert entry.wilson.low < 0.5 < entry.wilson.high
        assert entry.mean_difference.estimate == entry.mean_difference.low == entry.mean_difference.high == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_win_rates_of_both_directions_sum_to_one(pairs):
    first, second = (tuple(float(pair[k]) for pair in pairs) for k in (0, 1))
    columns = {"x": Column({"a": first}), "y": Column({"a": second})}
    common = {
        "prompts": tuple(map(str, range(len(pairs)))),
        "seeds": tuple(range(len(pairs))),
        "columns": columns,
        "judges": {"a": ""},
        "num_draws": 20,
    }
    one = make_table(Standings(**common, against="x")).of("y")[0].win
    other = make_table(Standings(**common, against="y")).of("x")[0].win
    assert one.rate + other.rate == pytest.approx(1.0)
    assert one.low <= one.rate <= one.high


def test_results_file_reads_back_equal_and_holds_no_nan(tmp_path):
    found = standings(setting={"prompts": {"sha256": "ab"}})
    found.save(tmp_path / "results.json", table=make_table(found).to_json())
    text = (tmp_path / "results.json").read_text()
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} was written"))
    assert (value["format"], value["num_pairs"], value["num_prompts"]) == (2, 6, 5)
    assert value["contenders"]["ours"]["scores"]["b"][1] is None
    assert Standings.load(tmp_path / "results.json") == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 1}', "format 1, which an earlier diffpref wrote; evaluate again"),
        ('{"format": 99}', "of format 99, expected 2"),
        ('{"format": 2}', "not those of an evaluation"),
        ("[", "cannot be read"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError) as error:
        Standings.load(tmp_path / "results.json")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="nobody is called 'our'; did you mean 'ours'"):
        standings(against="our")
    with pytest.raises(ConfigError, match="ties: must be half or loss, got 'win'"):
        standings(ties="win")
    with pytest.raises(ShapeError, match="base: a: expected 6 values, as many as prompts, got 2"):
        standings(columns={"base": Column({"a": (1.0, 2.0)})})


@pytest.mark.parametrize("silent", ["base", "ours"])
def test_a_judge_without_a_finite_score_leaves_a_blank_row_and_costs_no_other(silent):
    whole = standings()
    columns = dict(whole.columns)
    columns[silent] = replace(columns[silent], scores={**columns[silent].scores, "b": (None,) * 6})
    found = standings(columns=columns)
    table = make_table(found)
    blank = table.of(silent)[2]
    assert (blank.measure, blank.count, blank.not_finite) == ("b", 0, 6)
    assert (blank.mean, blank.median, blank.std, table.of("ours")[2].win) == (None,) * 4
    for name in ("base", "ours"):  # all that others say is as it was
        assert table.of(name)[:2] == make_table(whole).of(name)[:2]
    sheets = {sheet.title: sheet for sheet in make_sheets(found, table)}
    (row,) = (row for row in sheets["All contenders"].rows if row[:2] == (silent, "b"))
    assert row[2:] == ("",) * 9 + ("6", "")
    assert all(len(row) == len(sheet.heads) for sheet in sheets.values() for row in sheet.rows)


def test_a_judge_that_only_one_contender_lacks_keeps_its_column_by_category():
    columns = {**standings().columns, "mute": Column({"a": (None,) * 6, "b": (2.0,) * 6})}
    columns = {name: replace(column, facts={}) for name, column in columns.items()}
    found = standings(columns=columns)
    sheet = next(one for one in make_sheets(found, make_table(found)) if one.title == "By style")
    assert sheet.heads[3:] == ("a", "b")
    rows = [row for row in sheet.rows if row[2] == "mute"]
    assert len(rows) == 2 and all(row[3] == "" and row[4].startswith("100.0 %") for row in rows)


def test_a_judge_without_a_common_pair_has_no_win_rate():
    columns = {"base": Column({"a": (None, 1.0)}), "ours": Column({"a": (1.0, None)})}
    table = make_table(standings(prompts="pq", seeds=(1, 2), columns=columns, judges={"a": ""}, categories={}))
    assert table.of("ours")[0].win is None and math.isclose(table.of("ours")[0].mean, 1.0)


def test_a_contender_with_fewer_than_two_independent_judges_is_told():
    (line,) = independence_warnings(standings(columns={k: Column(c.scores, labelled_by=c.labelled_by)
                                                       for k, c in standings().columns.items()}))  # fmt: skip
    assert line.startswith("ours: trained on labels by a, and only b is independent of them")
    assert independence_warnings(standings()) == []  # facts and b


def test_sheets_show_what_there_is():
    sheets = {sheet.title: sheet for sheet in make_sheets(standings(), make_table(standings()))}
    assert list(sheets) == [
        "All contenders", "Mean over judges", "Facts", "By style", "Means by style", "Probes", "Distance from the base",
    ]  # fmt: skip
    assert all(len(row) == len(sheet.heads) for sheet in sheets.values() for row in sheet.rows)
    rows = {(row[0], row[1]): row for row in sheets["All contenders"].rows}
    assert rows["ours", "a"][7].startswith("58.3 % [") and rows["ours", "b"][11] == "1"
    assert rows["base", "a"][5:11] == ("",) * 6
    assert sheets["By style"].rows[0][:3] == ("x", "3", "ours")
