"""Trackers get what ``metrics.jsonl`` gets, and the validation pictures; scorers judge these during training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from accelerate import tracking

from diffpref.cli import main
from diffpref.config import build_recipe, load_recipe
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.evaluation.validation import ValidationPictures
from diffpref.shapes.grammar import captions
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
PROMPTS = [str(caption) for caption in captions("seen")[:2]]
PICTURES = {"prompts": PROMPTS, "seeds": [0, 1], "every": 2, "num_inference_steps": 1}


class Notebook(tracking.GeneralTracker):
    """A tracker that keeps in memory what it is told."""

    name = "notebook"
    requires_logging_directory = False
    told: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.told.append(("start", run_name))

    @property
    def tracker(self) -> list[tuple[Any, ...]]:
        return self.told

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("config", values))

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self.told.append(("log", step, values))

    def log_images(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self.told.append(("images", step, values))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    Notebook.told.clear()
    yield Notebook.told


def test_a_registered_tracker_gets_settings_metrics_and_pictures_and_is_finished(
    recipe_keys: Keys, tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    keys = recipe_keys(
        training={"steps": 4, "batch_size": 2, "log_every": 2},
        logging={"trackers": ["notebook"], "project": "mine"},
        validation={**PICTURES, "rewards": ["oracle"]},
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(keys))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    assert told[0] == ("start", "mine") and told[-1] == ("finish",)
    (settings,) = [item[1] for item in told if item[0] == "config"]
    assert settings["optim.learning_rate"] == 1e-4 and settings["validation.seeds"] == "[0, 1]"
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    logged = [item[1:] for item in told if item[0] == "log"]
    assert [step for step, _ in logged] == [row.pop("step") for row in rows] == [2, 4]
    assert [values for _, values in logged] == rows
    assert all(0 <= row["eval/oracle"] <= 1 for row in rows)
    shown = [item for item in told if item[0] == "images"]
    assert [(step, list(values)) for _, step, values in shown] == [
        (step, [f"validation/{number:02d} {prompt}"]) for step in (2, 4) for number, prompt in enumerate(PROMPTS)
    ]
    assert all(
        np.asarray(picture).shape == (64, 64, 3) for _, _, values in shown for picture in next(iter(values.values()))
    )


def test_tensorboards_own_file_holds_the_metrics(recipe_keys: Keys, tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra 'trackers'")
    keys = recipe_keys(logging={"trackers": ["tensorboard"]}, validation=PICTURES)
    keys["training"] |= {"checkpoint_every": 2}
    recipe = build_recipe(keys)
    for metrics in Trainer(recipe).steps():
        if metrics["step"] == 3:
            break  # goes on from 2; what was said of 3 is forgotten
    keys["training"] |= {"steps": 4}
    Trainer(build_recipe(keys), callbacks=[ValidationPictures(recipe.validation)]).fit()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    events = reading.EventAccumulator(str(tmp_path / "run" / "trackers" / "diffpref")).Reload()
    scalars = events.Scalars("loss")
    assert [event.step for event in scalars] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [event.value for event in scalars] == pytest.approx([row["loss"] for row in rows], rel=1e-6)
    assert events.Tags()["images"] == [f"validation/{number:02d} {prompt}" for number, prompt in enumerate(PROMPTS)]


def test_a_loop_that_is_left_early_closes_what_it_opened(recipe_keys: Keys, told: list[tuple[Any, ...]]) -> None:
    keys = recipe_keys(logging={"trackers": ["notebook"]})
    steps = Trainer(build_recipe(keys)).steps()
    next(steps)
    assert told[-1][0] == "log"
    steps.close()  # what Python does to an iterator that nobody holds any more
    assert told[-1] == ("finish",) and [item[0] for item in told].count("finish") == 1
    again = Trainer(build_recipe(keys))
    assert again.fit().is_dir() and [item[0] for item in told].count("finish") == 2


def test_row_43_a_missing_tracker_names_the_extra_before_anything_is_loaded(
    recipe_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ConfigError) as error:
        Trainer(
            build_recipe(recipe_keys(logging={"trackers": ["tensorboard", "mlflow", "tensorbord", "wandb", "wandb"]}))
        )
    assert [line.partition(" known:")[0] for line in str(error.value).splitlines()] == [
        "logging.trackers[0]: 'tensorboard' is not installed; pip install 'diffpref[trackers]'",
        "logging.trackers[1]: 'mlflow' is not installed; pip install mlflow",
        "logging.trackers[2]: unknown tracker 'tensorbord'; did you mean 'tensorboard'?",
        "logging.trackers[3]: 'wandb' is not installed; pip install 'diffpref[trackers]'",
        "logging.trackers[4]: 'wandb' is named twice",
    ]


class Broken:
    """Scores the first picture as NaN."""

    info = RewardInfo("broken", "1", "none", (0.0, 1.0))

    def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
        return torch.tensor([float("nan"), *range(1, len(media))])


def test_scores_that_are_not_finite_are_counted_and_left_out(recipe_keys: Keys) -> None:
    recipe = build_recipe(recipe_keys(validation={**PICTURES, "rewards": ["broken"]}))
    trainer = Trainer(recipe, callbacks=[ValidationPictures(recipe.validation, {"broken": Broken()})])
    rows = list(trainer.steps())
    assert (rows[1]["eval/broken"], rows[1]["eval/broken_not_finite"]) == (2.0, 1.0)
    assert "eval/broken" not in rows[0]
    with pytest.raises(ConfigError, match=r"validation\.rewards: names broken; hand the loaded scorers over"):
        ValidationPictures(recipe.validation)


def test_a_reward_with_a_path_can_be_written_in_a_word(recipe_keys: Keys, tmp_path: Path) -> None:
    words = {"rewards": ["oracle", "pickscore=bundled:shapes-pickscore"]}
    recipe = build_recipe(recipe_keys(validation={**PICTURES, **words}))
    assert [one.name for one in recipe.validation.rewards] == ["oracle", "pickscore"]
    assert recipe.validation.rewards[1].options == {"path": "bundled:shapes-pickscore"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_an_unknown_scorer_is_said_before_training(
    recipe_keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_keys(validation={**PICTURES, "rewards": ["pikscore"]})))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 2
    assert "unknown reward 'pikscore'; did you mean 'pickscore'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
