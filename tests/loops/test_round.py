"""The round: recipe, refusals, and the real command on the bundled models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffpref.cli import main
from diffpref.config import dump_yaml, load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.core.errors import ConfigError, DataError
from diffpref.generation import load_prompts
from diffpref.loops import align, load_alignment


def _small(folder: Path, **changes: Any) -> Path:
    """Write the demo's recipe with everything made small."""
    recipe = load_yaml(find_recipe("rounds/shapes"))
    recipe["generation"] |= {"prompts": "shapes:seen:6", "candidates": 2, "num_inference_steps": 2, "batch_size": 4}
    recipe["training"]["training"] |= {"steps": 3, "batch_size": 2}
    recipe["evaluation"] |= {"prompts": "shapes:unseen:4"}
    path = folder / "small.yaml"
    path.write_text(dump_yaml({**recipe, **changes}), encoding="utf-8")
    return path


def test_model_seed_and_folders_are_written_once() -> None:
    recipe = load_alignment("rounds/shapes", {"output": "runs/x", "seed": 3})
    assert recipe.generation.output == recipe.training.data.source == "runs/x/data"
    assert recipe.training.output == "runs/x/run"
    assert recipe.generation.model == recipe.training.model == recipe.model
    assert recipe.generation.seed == recipe.training.seed == 3


def test_the_demo_judges_captions_that_gave_no_pair_and_that_the_base_never_saw() -> None:
    recipe = load_alignment("rounds/shapes", {"output": "runs/x"})
    judged, trained = load_prompts(recipe.evaluation.prompts), load_prompts(recipe.generation.prompts)
    assert len(judged) * recipe.evaluation.seeds >= 400
    assert not set(judged) & set(trained)
    assert {named.name for named in recipe.generation.rewards} == {"pickscore", "clip", "hps", "oracle"}
    assert recipe.training.data.score == "pickscore"
    assert {named.name for named in recipe.evaluation.judges} == {"oracle", "hps"}


def test_the_label_of_the_demo_may_be_another_score_or_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_alignment("rounds/shapes", {"output": "x", "training.data.score": ["pickscore", "hps"]})
    assert recipe.training.data.score == ["pickscore", "hps"] and recipe.training.data.combine == "zscore"
    assert main(["demo", "--output", str(tmp_path), "--label", "clip", "--combine", "consensus"]) == 2
    assert "combine: is for several scores" in capsys.readouterr().err


@pytest.mark.slow
def test_an_ensemble_labels_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", str(tmp_path / "x"), "--recipe", str(_small(tmp_path)), "--json"]
    assert main(["demo", *words, "--label", "pickscore", "clip", "hps", "--combine", "win_fraction"]) == 0
    told = json.loads(capsys.readouterr().out)
    data = load_yaml(tmp_path / "x" / "run" / "config.yaml")["data"]
    assert (data["score"], data["combine"]) == (["pickscore", "clip", "hps"], "win_fraction")
    assert told["agreement"]["scorers"]["names"] == ["pickscore", "clip", "hps", "oracle"]
    assert told["agreement"]["scorers"]["prompts"] == 6 and len(told["agreement"]["judges"]["pairs"]) == 1
    assert "only facts right is independent" in told["warnings"][0].replace("_", " ")
    page = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    assert "How far the scorers agree" in page and "pickscore, oracle" in page
    markdown = (tmp_path / "x" / "report.md").read_text(encoding="utf-8")
    assert "## How far the judges agree" in markdown


def test_mistakes_are_named_with_their_path(tmp_path: Path) -> None:
    path = _small(tmp_path, evaluaton={})
    with pytest.raises(ConfigError, match=r"evaluaton.*did you mean 'evaluation'"):
        load_alignment(path, {"output": "runs/x"})
    path = _small(tmp_path, training={"method": "diffusion_dpo", "optim": {"learning_rate": -1}})
    with pytest.raises(ConfigError, match=r"training\.optim\.learning_rate: must be > 0"):
        load_alignment(path, {"output": "runs/x"})


def test_a_caption_that_is_trained_on_is_not_judged(tmp_path: Path) -> None:
    recipe = load_alignment(_small(tmp_path), {"output": str(tmp_path / "x")})
    same = recipe.evaluation.model_copy(update={"prompts": "shapes:seen:2"})
    with pytest.raises(DataError, match="also trained on"):
        align(recipe.model_copy(update={"evaluation": same}))


def test_a_wrong_recipe_gives_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--recipe", "rounds/shape"]) == 2
    assert "did you mean 'rounds/shapes'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_command_runs_resumes_and_repeats_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def words(output: Path) -> list[str]:
        return ["demo", "--recipe", str(recipe), "--output", str(output), "--json"]

    def run(output: Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main(words(output)) == 0
        results: dict[str, Any] = json.loads(capsys.readouterr().out)
        return results

    recipe = _small(tmp_path)
    first = run(tmp_path / "a")
    for name in ("report.html", "grid.png", "results.json", "run/lora/pytorch_lora_weights.safetensors"):
        assert (tmp_path / "a" / name).is_file()
    drawn = {part: part.stat().st_mtime_ns for part in (tmp_path / "a" / "data").glob("part-*")}
    assert drawn and run(tmp_path / "a") == first
    assert drawn == {part: part.stat().st_mtime_ns for part in drawn}  # nothing was drawn again
    command = [sys.executable, "-m", "diffpref", *words(tmp_path / "b")]  # another process, the same seed and numbers
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout) == first, done.stderr
