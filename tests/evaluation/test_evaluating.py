"""A whole evaluation on a tiny SDXL: the same model is even, what is kept is not redone, damage is mended and told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError, DataError, DiffprefError, ModelError
from diffpref.evaluation import EvaluationPlan, Standings, make_table
from diffpref.evaluation.contenders import Contender
from diffpref.evaluation.evaluating import evaluate
from diffpref.evaluation.folder import EvaluationFolder
from diffpref.evaluation.measures import PROBES
from diffpref.evaluation.measuring import Measures, Studio
from diffpref.evaluation.placing import check_contenders
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.roles import NetworkRole
from diffpref.sampling import Sampler, SamplerSettings

SETTINGS = SamplerSettings(1, 1.0, resolution=64, batch_size=4)
SAMPLER = {"num_inference_steps": 1, "resolution": 64}


class Redness:
    """A real reward that counts how often it is asked; it also places pictures."""

    def __init__(self, version: str = "v1", blind: int = -1) -> None:
        self.info = RewardInfo("redness", version, "Apache-2.0", (0.0, 255.0))
        self.asked, self.blind = 0, blind

    def score(self, media, prompts, metadata=None):
        self.asked += len(media)
        scores = torch.tensor([float(np.asarray(m)[..., 0].mean()) for m in media])
        return torch.where(torch.tensor([prompt == f"p{self.blind}" for prompt in prompts]), math.nan, scores)

    def embed_images(self, media):
        return torch.tensor(np.stack([np.asarray(m)[::16, ::16].reshape(-1) for m in media]), dtype=torch.float32)


class Drawing:
    """An evaluation's models, and how many pictures they drew."""

    def __init__(self, base: Path) -> None:
        self.base, self.drawn = base, 0

    def studio(self, folder: EvaluationFolder) -> Studio:
        return Studio(folder, lambda: load_family("sdxl", str(self.base)), self._sampler, SETTINGS.batch_size)

    def _sampler(self, family: DenoiserFamily) -> Sampler:
        outer = self

        class Counting(Sampler):
            def __call__(self, prompts, seeds):
                outer.drawn += len(prompts)
                return super().__call__(prompts, seeds)

        return Counting(family, NetworkRole(family, family.network), SETTINGS)


def plan(count: int = 6, **changes) -> EvaluationPlan:
    told = {"prompt_set": {"name": "set", "sha256": "ab"}, "sampler": SAMPLER, **changes}
    return EvaluationPlan(tuple(f"p{k // 2}" for k in range(count)), tuple(range(count)), **told)


@pytest.fixture(scope="module")
def noised(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The denoiser of the tiny SDXL with noise on its weights."""
    network = load_family("sdxl", str(tiny_sdxl), parts=("network",)).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("noised") / "unet"
    network.save_pretrained(folder)
    return folder


def run(folder: Path, drawing: Drawing, contenders, reward: Redness | None = None, **options) -> Standings:
    reward = reward or Redness()
    measures = Measures({"redness": reward}, None, PROBES, "redness")
    studio = drawing.studio(EvaluationFolder(folder, options.pop("plan", plan())))
    return evaluate(contenders, studio, measures, "base-weights", **options)


def test_same_weights_are_even_and_others_are_far(tiny_sdxl: Path, noised: Path, tmp_path: Path) -> None:
    drawing, reward = Drawing(tiny_sdxl), Redness()
    same, other = Contender("same", "pipeline", str(tiny_sdxl)), Contender("noised", "network", str(noised))
    found = run(tmp_path, drawing, [same, other], reward)
    assert (drawing.drawn, reward.asked) == (18, 18)
    (entry,) = make_table(found).of("same")
    assert (entry.win.rate, entry.win.low, entry.win.high, entry.win.ties) == (0.5, 0.5, 0.5, 6)
    assert entry.wilson.low < 0.5 < entry.wilson.high
    even, far, base = (found.columns[name].whole for name in ("same", "noised", "base"))
    assert even["prediction drift"] == 0.0 and far["prediction drift"] > 1e-3
    assert even["denoising error"] == base["denoising error"] and "prediction drift" not in base
    assert even["diversity (redness)"] == base["diversity (redness)"] > 0
    assert set(found.columns["noised"].probes) == set(PROBES)
    assert make_table(found).of("noised")[0].win.ties == 0

    again = run(tmp_path, drawing, [same, other], reward)
    assert again == found and (drawing.drawn, reward.asked) == (18, 18)  # nothing was drawn or asked again
    assert run(tmp_path / "fresh", Drawing(tiny_sdxl), [same, other]).columns == found.columns


def test_what_a_killed_evaluation_had_done_is_not_done_again(
    tiny_sdxl: Path, noised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [Contender("noised", "network", str(noised))]
    whole = run(tmp_path / "whole", Drawing(tiny_sdxl), other)
    drawing, reward = Drawing(tiny_sdxl), Redness()
    put, count = EvaluationFolder.put, 0

    def killed(self, name, index, picture):
        nonlocal count
        count += 1
        if count == 9:  # in the contender's first batch
            raise KeyboardInterrupt
        put(self, name, index, picture)

    monkeypatch.setattr(EvaluationFolder, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", drawing, other, reward)
    monkeypatch.undo()
    resumed = Drawing(tiny_sdxl)
    assert run(tmp_path / "killed", resumed, other, reward) == whole
    assert resumed.drawn == 12 - 8 and reward.asked == 12


def test_an_unreadable_picture_is_drawn_again_and_told(
    tiny_sdxl: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawing, same = Drawing(tiny_sdxl), [Contender("same", "pipeline", str(tiny_sdxl))]
    found = run(tmp_path, drawing, same)
    (tmp_path / "pictures" / "same" / "00003.png").write_bytes(b"\x89PNG no more")
    reward = Redness("v2")  # another version asks again, of the same pictures
    again = run(tmp_path, drawing, same, reward)
    assert "00003.png" in caplog.text and "drawn again" in caplog.text
    assert reward.asked == 12 and drawing.drawn == 12 + 1
    assert again.columns["same"].scores == found.columns["same"].scores
    assert again.judges == {"redness": "v2"}


@pytest.mark.parametrize(("images", "left", "redrawn"), [("keep", 6, 6), ("sample", 6, 0), ("none", 0, 0)])
def test_pictures_stay_as_told(tiny_sdxl: Path, tmp_path: Path, images: str, left: int, redrawn: int) -> None:
    drawing, same = Drawing(tiny_sdxl), [Contender("same", "pipeline", str(tiny_sdxl))]
    found = run(tmp_path, drawing, same, images=images)
    pictures = tmp_path / "pictures" / "same"
    assert len(list(pictures.glob("*.png"))) == left
    for file in pictures.glob("*.png"):
        file.unlink()
    before = drawing.drawn
    assert run(tmp_path, drawing, same, images=images).columns == found.columns
    assert drawing.drawn - before == redrawn


def test_scores_that_are_not_finite_are_counted_and_left_out(tiny_sdxl: Path, noised: Path, tmp_path: Path) -> None:
    other = [Contender("noised", "network", str(noised))]
    found = run(tmp_path, Drawing(tiny_sdxl), other, Redness(blind=1))
    assert found.columns["noised"].scores["redness"][2:4] == (None, None)
    (entry,) = make_table(found).of("noised")
    assert (entry.count, entry.not_finite, entry.win.dropped) == (4, 2, 2)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Standings.from_json(json.loads(text)) == found


def test_weights_that_changed_under_a_name_are_drawn_anew(
    tiny_sdxl: Path, noised: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawing = Drawing(tiny_sdxl)
    run(tmp_path, drawing, [Contender("one", "pipeline", str(tiny_sdxl))])
    found = run(tmp_path, drawing, [Contender("one", "network", str(noised))])
    assert "one: its weights have changed" in caplog.text and drawing.drawn == 18
    assert found.columns["one"].scores != found.columns["base"].scores


def test_another_evaluation_in_the_folder_is_refused_in_one_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    same = [Contender("same", "pipeline", str(tiny_sdxl))]
    run(tmp_path, Drawing(tiny_sdxl), same)
    other = plan(8, sampler={**SAMPLER, "num_inference_steps": 3})
    with pytest.raises(DataError) as error:
        run(tmp_path, Drawing(tiny_sdxl), same, plan=other)
    assert "sampler.num_inference_steps: 1 there, 3 here" in str(error.value)
    assert "prompts.pictures of a model: 6 there, 8 here" in str(error.value) and "\n" not in str(error.value)


def test_a_model_that_does_not_fit_is_one_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    from diffpref.models import registry

    network = registry.get("sd").tiny().network
    network.save_pretrained(tmp_path / "unet")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x" * 100)
    registry.get("sd").tiny().pipeline().save_pretrained(tmp_path / "sd")
    said = {"unet": ("network", "its denoiser's"), "lora": ("lora", "no LoRA"), "sd": ("pipeline", "Stable Diffusion")}
    for name, (kind, text) in said.items():
        one = Contender(name, kind, str(tmp_path / name))
        with pytest.raises(ModelError) as error:
            run(tmp_path / "out" / name, Drawing(tiny_sdxl), [one])
        assert str(error.value).startswith(f"{name}: ") and text in str(error.value)
        assert "\n" not in str(error.value)
        if kind != "pipeline":  # another text encoder is no hindrance for a whole model
            with pytest.raises(ModelError, match=f"^{name}: .*{text}"):
                check_contenders([one], str(tiny_sdxl))
    check_contenders([Contender("same", "pipeline", str(tiny_sdxl))], str(tiny_sdxl))
    with pytest.raises(ModelError, match=r"^gone: no/where is neither a folder nor a hub id that can be reached"):
        check_contenders([Contender("gone", "hub", "no/where")], str(tiny_sdxl))


def test_judges_that_cannot_score_these_pictures_are_refused_before_anything_is_drawn(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    drawing, reward = Drawing(tiny_sdxl), Redness()
    wrong = {"media": "video", "needs_metadata": True}
    said = {"media": "scores clips, and pictures are drawn", "needs_metadata": "reads what a picture should show"}
    for field, value in wrong.items():
        reward.info = replace(Redness().info, **{field: value})
        with pytest.raises(ConfigError, match=f"^reward 'redness' {said[field]}"):
            run(tmp_path, drawing, [], reward)
    studio = drawing.studio(EvaluationFolder(tmp_path, plan()))
    with pytest.raises(ConfigError, match="compares two items and scores none"):
        evaluate([], studio, Measures({"pairs": object()}), "base-weights")
    assert drawing.drawn == 0
    reward.info = replace(Redness().info, needs_metadata=True)
    told = plan(metadata=tuple({"row": k} for k in range(6)))
    assert run(tmp_path, drawing, [], reward, plan=told).columns["base"].scores["redness"][0] is not None


def test_nobody_to_judge_is_told(tiny_sdxl: Path, tmp_path: Path) -> None:
    studio = Drawing(tiny_sdxl).studio(EvaluationFolder(tmp_path, plan()))
    with pytest.raises(DiffprefError, match="nobody judges"):
        evaluate([], studio, Measures({}), "base-weights")
