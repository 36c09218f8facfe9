"""The command line dispatches, reports mistakes in a line each with exit code 2, and lists, cites and validates."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from diffpref.cli import COMMANDS, main
from diffpref.cli.list import entries
from diffpref.config import dump_yaml
from diffpref.core.citation import bibtex
from diffpref.core.errors import DataError

RECIPE = {
    "output": "runs/x",
    "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
    "data": {"source": "data/x"},
    "method": "diffusion_dpo",
    "objective": [{"dpo": {"beta": 100}}],
}


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)


def test_no_command_shows_the_help_on_stderr_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("usage: diffpref COMMAND")


def test_an_unknown_command_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tran"]) == 2
    assert capsys.readouterr().err.startswith("diffpref: unknown command 'tran'; did you mean 'train'? known: demo, ")


@pytest.mark.parametrize("module", ["diffpref", "diffpref.cli"])
def test_the_command_runs_as_a_module_without_traceback(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "validate", "absent.yaml"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("diffpref: ")]
    assert "no such recipe file" in done.stderr


@pytest.mark.parametrize(
    ("raised", "code", "lines"),
    [
        (DataError("one\ntwo"), 2, ["diffpref: one", "diffpref: two"]),
        (KeyboardInterrupt(), 130, ["diffpref: interrupted"]),
    ],
)
def test_mistakes_are_lines_and_interruption_has_its_code(
    raised: BaseException,
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_command(monkeypatch, raised)
    assert main(["score"]) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["score"])


def fake_command(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    def run(argv: list[str]) -> int:
        raise raised

    module = types.ModuleType("diffpref.cli.score")
    module.main = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffpref.cli.score", module)


def test_list_shows_names_aliases_evidence_and_can_run_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "objectives"]) == 0
    text = capsys.readouterr().out
    assert "dpo" in text and "also:" in text and "arXiv:2305.18290" in text
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = "objectives weightings methods loops captioners paraphrasers families adapters rewards recipes"
    assert set(found) == set(kinds.split())
    dpo = next(entry for entry in found["objectives"] if entry["name"] == "dpo")
    assert dpo["evidence"] == "official" and "sigmoid" in dpo["aliases"] and dpo["kind"] == "pairwise"
    assert {entry["name"] for entry in found["families"]} >= {"sd", "sdxl"}
    assert {entry["name"] for entry in found["rewards"]} >= {"clip", "pickscore", "hps_v2", "hps_v21", "oracle"}
    assert all(entry["source"] and entry["evidence"] for kind in ("objectives", "methods") for entry in found[kind])


def test_list_chooses_by_kind_likelihood_needs_and_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    def names(*arguments: str) -> set[str]:
        assert main(["list", "objectives", "--json", *arguments]) == 0
        return {entry["name"] for entry in json.loads(capsys.readouterr().out)["objectives"]}

    everything = names()
    assert {"dpo", "ipo"} <= names("--kind", "pairwise") < everything
    assert "nll" in names("--without", "reference") and not names("--without", "reference") & names(
        "--needs", "reference"
    )
    assert "dpo" in names("--needs", "rejected", "--likelihood", "denoising", "--evidence", "official")
    assert names("--evidence", "nobody") == set()
    with pytest.raises(SystemExit):
        main(["list", "families", "--kind", "pairwise"])
    assert "chooses among objectives and methods, not families" in capsys.readouterr().err


def test_listing_heavy_things_does_not_import_them() -> None:
    code = "import sys; from diffpref.cli import main; main(['list', 'rewards']); print('open_clip' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_cite_prints_an_entry_for_each_paper_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite", "dpo", "diffusion_dpo"]) == 0
    text = capsys.readouterr().out
    assert text.count("@misc{") == text.count("eprint") == 2
    assert "eprint = {2305.18290}" in text and "eprint = {2311.12908}" in text
    assert main(["cite", "nlll"]) == 2
    assert "did you mean 'nll'?" in capsys.readouterr().err


def test_every_paper_has_a_title() -> None:
    sources = [entry["source"] for kind in ("objectives", "methods") for entry in entries(kind)]
    papers = [entry for source in sources for entry in bibtex(source) if "eprint" in entry]
    assert papers and [entry for entry in papers if "title = {" not in entry] == []


def test_a_source_without_a_number_is_cited_as_it_is_written() -> None:
    assert bibtex("Some Report, 2024") == ["@misc{some_report_2024,\n  howpublished = {Some Report, 2024}\n}"]


def test_validate_accepts_a_good_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, RECIPE)
    assert main(["validate", path]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert main(["validate", path, "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_validate_shows_every_unknown_name_and_wrong_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        **RECIPE,
        "model": {"family": "sdxxl", "path": "x"},
        "adapter": {"kind": "lorra"},
        "method": {"diffusion_dpo": {"empty_prompt_prob": 2, "shre_noise": True}},
        "objective": [{"dpo": {"beta": -1}}, "nlll"],
    }
    assert main(["validate", write(tmp_path, bad)]) == 2
    lines = capsys.readouterr().err.splitlines()
    starts = [
        "diffpref: model.family: unknown family 'sdxxl'; did you mean 'sdxl'?",
        "diffpref: adapter.kind: unknown adapter 'lorra'; did you mean 'lora'?",
        "diffpref: method.diffusion_dpo.empty_prompt_prob: must be <= 1, got 2",
        "diffpref: method.diffusion_dpo.shre_noise: unknown key; did you mean 'share_noise'?",
        "diffpref: objective[0].dpo.beta: must be > 0, got -1",
        "diffpref: objective[1]: unknown objective 'nlll'; did you mean 'nll'?",
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_validate_says_when_the_parts_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {**RECIPE, "objective": [{"dpo": {"beta": 100}}, {"nll": {"coefficient": 0.5}}]}
    assert main(["validate", write(tmp_path, good)]) == 0
    assert main(["validate", write(tmp_path, {**good, "method": "sft"})]) == 2
    assert "objective: needs rejected samples; method 'sft' prepares chosen" in capsys.readouterr().err
    assert main(["validate", write(tmp_path, {**good, "method": "dpo"})]) == 2
    assert "method: 'dpo' is an objective, not a method" in capsys.readouterr().err


def test_numbers_such_as_1e3_work_in_options_too(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "output: o\nmodel: {family: sdxl, path: m}\ndata: {source: d}\n"
        "method: {diffusion_dpo: {noise_offset: 1e-2}}\nobjective: [{dpo: {beta: 5e3}}]\n"
    )
    assert main(["validate", str(tmp_path / "r.yaml")]) == 0


def write(folder: Path, recipe: object) -> str:
    path = folder / "recipe.yaml"
    path.write_text(dump_yaml(recipe))
    return str(path)


def test_validation_names_a_scorer_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml({**RECIPE, "validation": {"rewards": ["oracle", "hps_v22"]}}))
    assert main(["validate", str(tmp_path / "recipe.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("diffpref: validation.rewards[1]: unknown reward 'hps_v22'; did you mean 'hps_v2")
