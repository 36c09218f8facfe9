"""The report: it parses, asks for nothing outside, escapes what it shows, and shows what was found."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref.cli import main
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ShapeError
from diffpref.evaluation import Standings, compare, comparison, judged_pair
from diffpref.evaluation.headline import headline, number, reading, sentence
from diffpref.evaluation.provenance import Provenance, library_versions
from diffpref.evaluation.report import kept_pictures, write_report
from diffpref.evaluation.summary import print_summary, summary
from diffpref.ranking import agreement

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Strict(HTMLParser):
    """Checks that tags nest, and collects what a browser would fetch, and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.resources, self.texts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.resources += [v for k, v in attributes if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.resources += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


class Redness:
    info = RewardInfo("redness", "v1", "Apache-2.0", (0.0, 255.0))

    def score(self, media, prompts, metadata=None):
        return torch.tensor([float(np.asarray(m)[..., 0].mean()) for m in media])


def flat(red):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = red
    return image


ROWS = [
    {"step": i, "loss": 0.69, "rewards/margins": 0.1, "rewards/accuracies": 0.5, "errors/chosen_vs_reference": 1e-4}
    for i in range(1, 4)
]
NASTY = '<script>alert("x")</script> & "quoted" \' http://example.org $title ${body}'


def facts(image, prompt):
    return {"is_red": bool(image[0, 0, 0] > 100), "is_<b>bold</b>": True}


def test_scorers_are_compared_where_there_are_two(tmp_path):
    found = agreement({"a": [[1.0, 2.0, np.nan]], "b_c": [[1.0, 3.0, 2.0]], "d": [[2.0, 1.0, 1.0]]})
    _, page = make(tmp_path, scorers=found)
    text, told = page.read_text(encoding="utf-8"), json.loads((tmp_path / "results.json").read_text())["agreement"]
    assert told["scorers"] == json.loads(json.dumps(found.to_json()))
    assert told["judges"]["names"] == ["facts right", "redness"]
    pair = told["judges"]["pairs"][0]  # facts follow redness: up, down, up, and the last pair is of equal pictures
    assert (pair["concordant"], pair["discordant"], pair["both_ties"]) == (3, 0, 1)
    assert "How far the scorers agree" in text and "a, b c" in text
    assert "## How far the judges agree" in (tmp_path / "report.md").read_text(encoding="utf-8")
    make(tmp_path / "alone", look=None)
    assert json.loads((tmp_path / "alone" / "results.json").read_text())["agreement"] == {}


def make(folder, prompts=(NASTY, "b", "c", "d"), metrics=ROWS, look=facts, **options):
    base, aligned = [flat(r) for r in (50, 150, 60, 90)], [flat(r) for r in (200, 20, 190, 90)]
    standings = judged_pair(prompts, [0, 1, 2, 3], base, aligned, {"redness": Redness()}, look, num_draws=200)
    shown = kept_pictures({"base": base, "aligned": aligned}, 4)
    return standings, write_report(folder, standings, shown, title="T <i>", metrics=metrics, **options)


def compared(folder):
    return comparison(make(folder)[0], "aligned")


@pytest.fixture
def page(tmp_path):
    provenance = Provenance(
        command="diffpref demo --output <here>",
        config="objective: {dpo: {beta: 1000}} # <script>",
        seeds={"training": 7},
        counts={"pairs": 1234},
        seconds={"generate": 1.25, "train": 2.5},
    )
    return make(tmp_path, provenance=provenance, notes=["A further <limit>."])[1].read_text()


def parse(text):
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_page_is_well_formed_and_runs_no_script(page):
    parser = parse(page)
    assert page.startswith("<!doctype html>")
    assert "script" not in parser.tags and "iframe" not in parser.tags and "link" not in parser.tags
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_page_asks_for_nothing_outside(page):
    assert all(resource.startswith(("data:image/png;base64,", "#")) for resource in parse(page).resources)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert set(re.findall(r"https?://[^\s<&]*", page)) == {"http://example.org"}  # the text of a prompt, not a link


def test_texts_from_outside_are_escaped_and_arrive_unchanged(page):
    assert "<script" not in page and "<b>" not in page and "<limit>" not in page and "<i>" not in page.split("</h1>")[0]
    texts = "".join(parse(page).texts)
    assert NASTY in texts and "T <i>" in texts and "A further <limit>." in texts


def test_pictures_in_the_page_are_the_pictures(page):
    first = next(r for r in parse(page).resources if r.startswith("data:"))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.split(",")[1]))))
    assert picture.shape == (8, 8, 3) and picture[0, 0, 0] in (50, 150, 60, 90)


def test_gains_and_losses_are_both_shown_in_order(page):
    sections = {part.split("</h2>")[0]: part for part in page.split("<h2>")[1:]}
    gains, losses = sections["Largest gains"], sections["Largest losses"]
    seeds = [re.findall(r'class="seed">seed (\d)', part) for part in (gains, losses)]
    assert seeds == [["0", "2"], ["1"]]
    assert "2 pairs that improved" in gains and "1 pairs that got worse" in losses
    assert len(re.findall('class="pair"', sections["Before and after"])) == 4


def test_curves_are_drawn_for_the_metrics_that_exist(page, tmp_path):
    assert len(re.findall('<svg class="plot"', page)) == 5  # loss, margin, accuracy, errors; the facts
    _, path = make(tmp_path / "none", metrics=())
    assert "<h2>Training</h2>" not in path.read_text()


def test_page_says_how_it_was_made(page):
    texts = " ".join(parse(page).texts)
    for text in (
        "diffpref demo --output <here>",
        "beta: 1000",
        "1,234",
        "3.8",
        "training",
        library_versions()["torch"],
    ):
        assert text in texts


def test_report_comes_with_grid_and_numbers(tmp_path):
    standings, _ = make(tmp_path)
    assert Image.open(tmp_path / "grid.png").format == "PNG"
    assert Standings.load(tmp_path / "results.json") == standings
    shares = json.loads((tmp_path / "results.json").read_text())["table"]["shares"]
    assert (shares[0]["contender"], shares[0]["fact"], shares[0]["share"]) == ("base", "all facts right", 0.25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", "report.html", "report.md", "results.json"]


def test_same_report_twice_is_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        make(tmp_path / name)
    for name in ("report.html", "report.md", "grid.png", "results.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_report_of_three_shows_them_side_by_side_and_warns(tmp_path):
    base, aligned = [flat(r) for r in (50, 150, 60, 90)], [flat(r) for r in (200, 20, 190, 90)]
    two = judged_pair((NASTY, "b", "c", "d"), [0, 1, 2, 3], base, aligned, {"redness": Redness()}, num_draws=200)
    columns = {"base": two.columns["base"], "ours": two.columns["aligned"], "other": two.columns["base"]}
    columns["ours"] = replace(columns["ours"], labelled_by=("redness",))
    standings = replace(two, columns=columns)
    images = {"base": base, "ours": aligned, "other": base}
    path = write_report(tmp_path, standings, kept_pictures(images, 4), title="Three")
    page = parse(path.read_text())
    texts = " ".join(page.texts)
    assert "By redness, ours wins 62.5 % of 4 prompt-seed pairs against the base model" in texts
    assert "none of the judges is independent of them" in texts
    assert texts.count("Largest gains") == 2 and "Side by side" in texts and "Before and after" not in texts
    assert path.read_text().count('class="many"') == 4
    assert Image.open(tmp_path / "grid.png").height > Image.open(tmp_path / "grid.png").width
    told = (tmp_path / "report.md").read_text()
    assert "**Note.** ours: trained on labels by redness" in told and "<script" not in told.replace("\\<", "")


def test_report_without_pictures_has_every_number(tmp_path):
    standings, _ = make(tmp_path / "with")
    path = write_report(tmp_path / "without", standings, None, title="T")
    assert not (tmp_path / "without" / "grid.png").exists() and "<img" not in path.read_text()
    one, other = ((tmp_path / name / "results.json").read_bytes() for name in ("with", "without"))
    assert one == other


def test_report_without_facts_or_without_losses_says_so(tmp_path):
    _, path = make(tmp_path, look=None)
    assert "Fact by fact" not in path.read_text()
    images = [flat(10)]
    standings = judged_pair(["a"], [0], images, images, {"redness": Redness()}, num_draws=50)
    shown = kept_pictures({"base": images, "aligned": images}, 1)
    path = write_report(tmp_path / "even", standings, shown, title="Even")
    assert path.read_text().count("There are none.") == 2


class Silent(Redness):
    def score(self, media, prompts, metadata=None):
        return torch.full((len(media),), torch.nan)


@pytest.mark.parametrize("look", [facts, None])
def test_a_judge_without_a_score_costs_neither_the_report_nor_the_other_judges(tmp_path, capsys, look):
    pictures = {"base": [flat(50), flat(150)], "aligned": [flat(200), flat(20)]}
    judges = {"silent": Silent(), "redness": Redness()}
    standings = judged_pair(["a", "b"], [0, 1], *pictures.values(), judges, look, num_draws=200)
    page = write_report(tmp_path, standings, kept_pictures(pictures, 2), title="T")
    texts = parse(page.read_text(encoding="utf-8")).texts
    assert "silent gave no finite score for 2 pictures of aligned; they are left out." in texts
    assert "no finite pair, 2 left out" in texts and "1 / 0 / 1" in texts
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "| aligned | silent |  |  |  |  |  |  |  |  |  | 2 |  |" in lines
    assert main(["evaluate", "--again", str(tmp_path), "--json"]) == 0
    entries = {(e["contender"], e["measure"]): e for e in json.loads(capsys.readouterr().out)["table"]["entries"]}
    blank, whole = entries["aligned", "silent"], entries["aligned", "redness"]
    assert (blank["count"], blank["not_finite"], blank["mean"], blank["win"]) == (0, 2, None, None)
    assert (whole["count"], whole["mean"], whole["win"]["wins"]) == (2, 110.0, 1)
    assert main(["evaluate", "--again", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "no finite pair, 2 left out" in told and ("All facts" in told if look else "By redness, the aligned" in told)


def test_sentence_says_that_no_judge_gave_a_score():
    found = judged_pair(["a"], [0], [flat(1)], [flat(2)], {"silent": Silent()}, num_draws=200)
    said = sentence(comparison(found, "aligned"))
    assert said.startswith("No judge gave finite scores to both pictures of any of 1 prompt-seed pairs")


def test_a_report_made_again_keeps_the_notes(tmp_path, capsys):
    make(tmp_path, notes=["A further <limit>."])
    (tmp_path / "report.html").unlink()
    for _ in range(2):
        assert main(["evaluate", "--again", str(tmp_path)]) == 0
        assert "A further &lt;limit&gt;." in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["notes"] == ["A further <limit>."]


def test_report_refuses_other_pictures_than_were_compared():
    with pytest.raises(ShapeError, match="expected 4 pictures a side, got 3 and 4"):
        kept_pictures({"base": [flat(1)] * 3, "aligned": [flat(1)] * 4}, 4)


def test_summary_names_every_measure_with_its_numbers(tmp_path):
    found = compared(tmp_path)
    out = io.StringIO()
    text = print_summary(found, out)
    assert text == out.getvalue() == summary(found)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "25.0 %" in lines["all facts right"] and "50.0 %" in lines["all facts right"]
    assert "2 / 1 / 1" in lines["redness v1"] and "62.5 %" in lines["redness v1"]
    assert "is red" in lines
    assert text.startswith(sentence(found)) and "+25.0 points" in sentence(found)
    assert "4 prompt-seed pairs" in sentence(found)


def test_summary_on_a_terminal_is_a_table_that_reads_markup_as_text(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    found = compare(["a"], [0], [flat(1)], [flat(2)], {"[red]x": Redness()}, num_draws=50)
    out = Terminal()
    assert print_summary(found, out) == summary(found)
    assert "[red]x" in out.getvalue()


def test_headline_without_facts_holds_the_judges_alone():
    found = compare(["a"], [0], [flat(1)], [flat(2)], {"redness": Redness()}, num_draws=50)
    assert [row.measure for row in headline(found)] == ["redness v1"]
    assert "By redness, the aligned model wins 100.0 %" in sentence(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (21.9538, "21.95"),
        (0.27123, "0.2712"),
        (0.0, "0.000"),
        (-3.5, "-3.500"),
        (123456.7, "123457"),
        (1e-7, "1.000e-07"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert number(value) == text


def test_numbers_of_an_interval_share_their_decimals():
    assert [number(v, significant=3, like=0.57, sign=True) for v in (0.05263, 0.57)] == ["+0.053", "+0.570"]


def test_reading_is_undecided_where_the_interval_touches_the_even_value():
    assert [reading(*ends, 0.5) for ends in ((0.51, 0.6), (0.4, 0.49), (0.5, 0.6))] == ["better", "worse", "undecided"]
