"""GenEval: its rules against the official numbers and cases, its detectors at toy size, and the shapes world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detectors import CLASSES, save_detr, save_mask2former, save_owl
from tiny_encoders import save_clip

from diffpref import rewards
from diffpref.core.errors import ConfigError, DataError, ModelError, ShapeError
from diffpref.evaluation.measures import geneval_score
from diffpref.evaluation.prompt_sets import load_prompt_set
from diffpref.rewards import _detectors
from diffpref.rewards._colour_clip import PALETTE, cut_out, load_clip_colours
from diffpref.rewards._detectors import BoxDetector, MaskDetector, OpenDetector, load_detector
from diffpref.rewards._geneval_rules import RELATIONS, Scene, exact, relations, soft, specification, strict
from diffpref.rewards._objects import Found, iou, kept
from diffpref.rewards.geneval import DETECTOR, GenEval
from diffpref.shapes.grammar import Caption
from diffpref.shapes.render import render

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards"
BLANK = np.zeros((40, 60, 3), np.uint8)


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return content


# ---- geometry


def test_official_relations_and_overlaps():
    case = golden("geneval_relative_position")
    pairs = case["inputs"]["box_pairs(A,B) xyxy"]
    found = [sorted(relations(*pair, case["params"]["position_threshold"])) for pair in pairs]
    assert found == [sorted(names) for names in case["expected"]["relations_of_A_to_B"]]
    assert [iou(*pair) for pair in pairs] == pytest.approx(case["expected"]["iou(inclusive +1)"], abs=1e-9)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [((-30, 0), {"left of"}), ((30, 2), {"right of"}), ((1, -30), {"above"}), ((0, 30), {"below"}), ((1, 1), set())],
)
def test_relations_and_their_opposites(offset, expected):
    first, second = (0.0, 0.0, 10.0, 10.0), (-offset[0], -offset[1], 10.0 - offset[0], 10.0 - offset[1])
    opposite = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
    assert relations(first, second) == expected
    assert relations(second, first) == {opposite[name] for name in expected}


def test_one_place_is_no_relation():
    assert relations((0.0, 0.0, 9.0, 9.0), (0.0, 0.0, 9.0, 9.0), threshold=0.0) == set()


def objects(*scores: float, name: str = "cat", shift: float = 20.0) -> list[Found]:
    return [Found(name, (shift * i, 0.0, shift * i + 10, 10.0), score) for i, score in enumerate(scores)]


def test_the_surest_objects_are_kept():
    found = objects(0.5, 0.9, 0.3, 0.7)
    assert [one.score for one in kept(found, threshold=0.3, max_objects=2, max_overlap=1.0)] == [0.9, 0.7]
    close = objects(0.9, 0.8, 0.7, shift=5.0)  # the first overlaps the second by 6/16, the third by 1/21
    assert [one.score for one in kept(close, threshold=0.0, max_objects=9, max_overlap=0.3)] == [0.9, 0.7]
    assert len(kept(close, threshold=0.0, max_objects=9, max_overlap=1.0)) == 3


# ---- rules


def scene(**found: Sequence[Found]) -> Scene:
    return Scene(found, lambda objects: [one.colour for one in objects])


def wanted(*include: dict[str, Any], exclude: Sequence[dict[str, Any]] = (), tag: str = "") -> Any:
    return specification({"tag": tag, "include": list(include), "exclude": list(exclude)}, "here", None, ())


def test_official_grades_of_counts():
    case = golden("flow_grpo_geneval_soft_count_reward")
    pairs = case["inputs"]["(required,found)"]
    asked = [wanted({"class": "cat", "count": required}) for required, _ in pairs]
    seen = [scene(cat=objects(*[0.9] * found)) for _, found in pairs]
    both = list(zip(seen, asked, strict=True))
    assert [soft(*pair) for pair in both] == pytest.approx(case["expected"]["reward"], abs=1e-9)
    assert [bool(exact(*pair)) for pair in both] == case["expected"]["strict"]
    official = case["expected"]["geneval_official_correct_without_exclude"]
    assert [bool(strict(*pair)) for pair in both] == official


def test_counting_is_strict_by_its_exclusion():
    asked = wanted({"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
    assert [strict(scene(cat=objects(*[0.9] * n)), asked) for n in range(5)] == [0, 0, 1, 0, 0]
    assert exact(scene(cat=objects(0.9, 0.9)), asked) == 1  # the rules of training do not read it


def coloured(*colours: str | None) -> list[Found]:
    return [Found("cat", (20.0 * i, 0.0, 20.0 * i + 10, 10.0), 0.9 - i / 10, colour=c) for i, c in enumerate(colours)]


@pytest.mark.parametrize(
    ("colours", "grades"),
    [  # of two red cats: strict, exact, soft
        (("red", "red"), (1, 1, 1)),
        (("red", "blue"), (0, 0, (1 + 0.5) / 2)),
        (("red", "red", "blue"), (1, 0, (0.5 + 0) / 2)),  # the surest two are red; three are not two
        (("blue", "red", "red"), (0, 0, (0.5 + 0) / 2)),
        (("red",), (0, 0, (0.5 + 0) / 2)),
        ((), (0, 0, 0)),
    ],
)
def test_colours(colours, grades):
    asked, seen = wanted({"class": "cat", "count": 2, "color": "red"}), scene(cat=coloured(*colours))
    assert (strict(seen, asked), exact(seen, asked), soft(seen, asked)) == pytest.approx(grades)


def placed(first: tuple[float, float] | None, second: tuple[float, float] | None) -> Scene:
    boxes = {
        name: [] if at is None else [Found(name, (at[0], at[1], at[0] + 10, at[1] + 10), 0.9)]
        for name, at in (("dog", first), ("cat", second))
    }
    return scene(**boxes)


@pytest.mark.parametrize(
    ("dog", "cat", "grades", "legacy"),
    [  # a cat left of a dog: strict, exact, soft; soft by the official code
        ((50, 0), (0, 0), (1, 1, 1), 1),
        ((0, 0), (50, 0), (0, 0, 2 / 3), 3 / 4),  # the wrong side: 1, 1, 0, and the official code adds a 1
        ((50, 0), None, (0, 0, 1 / 3), 1 / 3),
        (None, (0, 0), (0, 0, 1 / 3), 1 / 3),  # nothing to lie left of: 0, 1, 0
    ],
)
def test_places(dog, cat, grades, legacy):
    asked = wanted({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]})
    seen = placed(dog, cat)
    assert (strict(seen, asked), exact(seen, asked), soft(seen, asked)) == pytest.approx(grades)
    assert soft(seen, asked, legacy=True) == pytest.approx(legacy)


def test_many_objects_make_the_grade_negative():
    assert soft(scene(cat=objects(*[0.9] * 4)), wanted({"class": "cat", "count": 1})) == -2


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"tag": "x"}, "metadata of GenEval has tag and include"),
        ({}, "found nothing"),
        ({"include": "cat"}, "include must be a list"),
        ({"include": [{"count": 1}]}, "include 0: expected"),
        ({"include": [{"class": "cat", "count": 0}]}, "count must be 1 or more, got 0"),
        ({"include": [{"class": "cat", "count": True}]}, "count must be 1 or more"),
        ({"include": [{"class": "cat", "count": 1, "colour": "red"}]}, "unknown 'colour'; known: class, count, color"),
        ({"include": [{"class": "cat", "count": 1, "position": ["left of", 0]}]}, "number of an earlier clause"),
        ({"include": [{"class": "cats", "count": 1}]}, "the detector knows no 'cats'; did you mean 'cat'"),
        ({"include": [{"class": "cat", "count": 1}], "exclude": [{"class": "owl", "count": 1}]}, "knows no 'owl'"),
        ({"include": [{"class": "cat", "count": 1, "color": "mauve"}]}, "unknown colour 'mauve'"),
    ],
)
def test_metadata_that_cannot_be_judged_are_told(told, message):
    with pytest.raises(DataError, match=message) as caught:
        specification(told, "item 3", frozenset({"cat", "dog"}), ("red", "blue"))
    assert str(caught.value).startswith("item 3") and "\n" not in str(caught.value)


# ---- the reward around them


class Fake:
    """Two cats wherever it looks, one of them hardly."""

    version, licence, classes = "fake", "none", frozenset({"cat"})

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], float]] = []

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        self.asked.append((list(classes), threshold))
        return [*objects(0.95, 0.4), Found("dog", (0.0, 0.0, 1.0, 1.0), 0.99)]


def cats(count: int, tag: str = "two_object") -> dict[str, Any]:
    return {"tag": tag, "include": [{"class": "cat", "count": count}]}


def test_counting_has_a_threshold_of_its_own():
    detector = Fake()
    reward = rewards.load("geneval", detector=detector, rule="exact")
    told = [cats(2), cats(2, "counting"), cats(1, "counting")]
    assert reward.score([BLANK] * 3, [""] * 3, told).tolist() == [1, 0, 1]
    assert detector.asked == [(["cat"], 0.3), (["cat"], 0.9), (["cat"], 0.9)]


def test_a_plain_function_detects_too():
    def nothing(picture, classes, threshold):
        return []

    reward = rewards.load("geneval", detector=nothing, colours=lambda picture, objects: ["red"] * len(objects))
    assert reward.score([BLANK], [""], [{"include": [{"class": "yeti", "count": 1, "color": "red"}]}]).tolist() == [0]
    assert reward.info.version.startswith("nothing+<lambda>+strict") and reward.info.needs_metadata


def test_what_changes_numbers_changes_the_version():
    options = [{}, {"rule": "soft"}, {"rule": "soft", "legacy": True}, {"threshold": 0.5}, {"max_overlap": 0.5}]
    versions = {rewards.load("geneval", detector="shapes", **one).info.version for one in options}
    assert len(versions) == len(options)


def test_without_metadata_or_colours_nothing_is_scored():
    reward = GenEval(Fake())
    with pytest.raises(DataError, match="reads what a picture must show from metadata"):
        reward.score([BLANK], ["a cat"])
    with pytest.raises(DataError, match=r"metadata of item 0: wants a colour, which nobody names"):
        reward.score([BLANK], [""], [{"include": [{"class": "cat", "count": 1, "color": "red"}]}])
    with pytest.raises(ShapeError, match="metadata of 2"):
        reward.score([BLANK], [""], [cats(1)] * 2)


def test_the_ways_to_name_a_detector(tmp_path):
    with pytest.raises(ConfigError, match=f"needs a path: .*{DETECTOR.repository}"):
        rewards.load("geneval")
    with pytest.raises(ConfigError, match="a detector and a path"):
        rewards.load("geneval", "folder", detector="shapes")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=rf"{DETECTOR.repository} \(licence: other"):
            rewards.load("geneval", str(path))
    with pytest.raises(ConfigError, match="detector"):
        rewards.load("geneval", detector="yolo")


# ---- the shapes world


def drawn(prompts: Sequence[str]) -> list[np.ndarray]:
    return [render(Caption.parse(prompt), np.random.default_rng(i)) for i, prompt in enumerate(prompts)]


def test_true_pictures_of_the_shapes_set_are_all_right_and_others_are_not():
    asked = load_prompt_set("shapes_geneval:40")
    reward = rewards.load("geneval", detector="shapes")
    pictures = drawn(asked.prompts)
    right = reward.score_aspects(pictures, asked.prompts, asked.metadata)
    assert all(torch.equal(scores, torch.ones(40)) for scores in right.values())
    swapped = reward.score_aspects(pictures[1:] + pictures[:1], asked.prompts, asked.metadata)
    assert asked.metadata is not None
    result = geneval_score(swapped["strict"], [told["tag"] for told in asked.metadata])
    assert result.overall < 0.2 and float(swapped["soft"].mean()) < 0.6
    assert torch.equal(swapped["strict"], reward.score(pictures[1:] + pictures[:1], asked.prompts, asked.metadata))


def test_one_thing_wrong_is_seen_by_the_task_that_asks_for_it():
    reward = rewards.load("geneval", detector="shapes")
    circle, square = {"class": "circle", "count": 1}, {"class": "square", "count": 1}
    told = [
        {"tag": "two_object", "include": [circle, square]},
        {"tag": "color_attr", "include": [{**circle, "color": "red"}, {**square, "color": "blue"}]},
        {"tag": "position", "include": [square, {**circle, "position": ["left of", 0]}]},
        {"tag": "counting", "include": [{"class": "circle", "count": 2}], "exclude": [{"class": "circle", "count": 3}]},
    ]
    for caption, expected in [
        ("a red circle left of a blue square", [1, 1, 1, 0]),
        ("a red circle above a blue square", [1, 1, 0, 0]),
        ("a green circle left of a blue square", [1, 0, 1, 0]),
        ("a red circle left of a blue triangle", [0, 0, 0, 0]),
        ("a red circle left of a blue circle", [0, 0, 0, 1]),
    ]:
        assert reward.score(drawn([caption]) * 4, [caption] * 4, told).tolist() == expected, caption


def test_pictures_of_another_size_are_told():
    told = [{"include": [{"class": "circle", "count": 1}]}]
    with pytest.raises(DataError, match=r"64 x 64 pixels, got \(60, 40\)"):
        rewards.load("geneval", detector="shapes").score([BLANK], [""], told)


# ---- colours by CLIP


def test_an_object_is_cut_out_on_grey():
    picture = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3))
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:40] = True
    cut = np.asarray(cut_out(picture, Found("cat", (28.4, 8.6, 41.2, 21.0), 0.9, mask)))
    assert cut.shape == (12, 13, 3) and (cut[[0, 11]] == 153).all() and (cut[:, [0, 1, 12]] == 153).all()
    assert np.array_equal(cut[1:11, 2:12], np.asarray(picture)[10:20, 30:40])
    assert cut_out(picture, Found("cat", (-5.0, 3.0, -4.0, 3.0), 0.9)).size == (1, 1)
    assert cut_out(picture, Found("cat", (50.0, 30.0, 90.0, 90.0), 0.9)).size == (10, 10)


def test_colours_are_those_of_the_nearest_sentences(tmp_path):
    colours = load_clip_colours(str(save_clip(tmp_path)), "cpu")
    assert colours.palette == PALETTE and colours.version.startswith("sha256-")
    rows = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(rows)
    found = [Found(name, (4.0 * i, 2.0, 4.0 * i + 20, 30.0), 0.9) for i, name in enumerate(["cat", "dog", "cat"])]
    named = colours(picture, found)
    for one, colour in zip(found, named, strict=True):
        crop = rows[2:30, int(one.box[0]) : int(one.box[2])]
        pixels = colours.encoder.preprocess([Image.fromarray(crop)])
        image = torch.nn.functional.normalize(colours.encoder.encode_images(pixels), dim=-1)[0]
        scores = []
        for word in PALETTE:
            texts = [f"a photo of a {word} {one.name}", f"a photo of a {word}-colored {one.name}"]
            embeds = colours.encoder.encode_prompts([*texts, f"a photo of a {word} object"])
            mean = torch.stack([embed / embed.norm() for embed in embeds]).mean(dim=0)
            scores.append(float(mean / mean.norm() @ image))
        assert colour == PALETTE[int(np.argmax(scores))]
    assert colours(picture, found[1:2]) == named[1:2]


# ---- detectors of transformers


@pytest.fixture
def without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mask2Former's loss asks for scipy when it is made, and is never run here."""
    from transformers.models.mask2former import modeling_mask2former

    monkeypatch.setattr(modeling_mask2former, "requires_backends", lambda *args: None)
    monkeypatch.setattr(_detectors, "is_installed", lambda package: True)


PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 80, 3), dtype=np.uint8))  # not square
ASKED = ["computer mouse", "cat", "dog", "computer keyboard"]


@pytest.mark.parametrize(
    ("save", "kind"), [(save_detr, BoxDetector), (save_mask2former, MaskDetector), (save_owl, OpenDetector)]
)
@pytest.mark.usefixtures("without_scipy")
def test_detectors_of_three_kinds(tmp_path, save, kind):
    detector: Any = load_detector(str(save(tmp_path)), "cpu")
    assert type(detector) is kind and detector.version.startswith("sha256-")
    found = detector(PICTURE, ASKED, 0.01)
    assert found and {one.name for one in found} <= set(ASKED) and all(one.score > 0.01 for one in found)
    best = max(one.score for one in found)
    assert all(one.score > best - 1e-3 for one in detector(PICTURE, ASKED, best - 1e-3))
    assert detector(PICTURE, ASKED, 1.0) == []
    name = found[0].name
    if kind is not OpenDetector:
        assert {one.name for one in detector(PICTURE, [name], 0.01)} == {name}
        assert detector.classes == set(ASKED)
    reward = rewards.load("geneval", str(tmp_path), rule="soft", threshold=0.01)
    graded = reward.score([np.asarray(PICTURE)], [""], [{"tag": "", "include": [{"class": name, "count": 1}]}])
    count = min(16, len(detector(PICTURE, [name], 0.01)))
    assert graded.tolist() == pytest.approx([1 - abs(1 - count)])


def test_boxes_are_those_of_the_model(tmp_path):
    from transformers import DetrForObjectDetection, DetrImageProcessor

    detector = load_detector(str(save_detr(tmp_path)), "cpu")
    model = DetrForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        outputs = model(**DetrImageProcessor.from_pretrained(tmp_path)(images=PICTURE, return_tensors="pt"))
    shares = outputs.logits[0].softmax(-1)[:, :-1]
    x, y, width, height = (outputs.pred_boxes[0] * torch.tensor([80.0, 48, 80, 48])).unbind(-1)
    corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)
    names = {**CLASSES, 1: "computer mouse", 3: "computer keyboard"}
    expected = [(names[int(share.argmax())], share.max(), box) for share, box in zip(shares, corners, strict=True)]
    found = detector(PICTURE, ASKED, 0.0)
    assert [one.name for one in found] == [name for name, _, _ in expected]
    assert [one.score for one in found] == pytest.approx([float(score) for _, score, _ in expected], abs=1e-5)
    assert np.allclose([one.box for one in found], torch.stack([box for _, _, box in expected]), atol=1e-3)


@pytest.mark.usefixtures("without_scipy")
def test_masks_are_those_of_the_model_at_the_size_of_the_picture(tmp_path):
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

    detector = load_detector(str(save_mask2former(tmp_path)), "cpu")
    model = Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        outputs = model(**Mask2FormerImageProcessor.from_pretrained(tmp_path)(images=PICTURE, return_tensors="pt"))
    shares = outputs.class_queries_logits[0].softmax(-1)[:, :-1]
    expected = []
    for query, label in ((q, c) for q in range(len(shares)) for c in range(4)):
        size = {"size": (48, 80), "mode": "bilinear", "align_corners": False}
        logits = torch.nn.functional.interpolate(outputs.masks_queries_logits[:, query : query + 1], **size)
        chances = logits[0, 0].sigmoid()
        inside = chances > 0.5
        if inside.any() and (score := float(shares[query, label] * chances[inside].mean())) > 0.02:
            rows, columns = np.nonzero(inside.numpy())
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            expected.append((score, box, float(inside.float().mean())))
    found = detector(PICTURE, ASKED, 0.02)
    assert len(found) == len(expected) > 2
    for one, (score, box, share) in zip(found, expected, strict=True):
        assert one.score == pytest.approx(score, abs=1e-5) and one.box == box
        assert one.mask is not None and one.mask.shape == (48, 80) and one.mask.mean() == pytest.approx(share)


def test_weights_that_are_missing_or_pickled_are_told(tmp_path):
    from safetensors.torch import load_file, save_file

    save_detr(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "class_labels" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="lacks 2 weights of its detector, such as class_labels_classifier"):
        load_detector(str(tmp_path), "cpu")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled weights only"):
        load_detector(str(tmp_path), "cpu")


def test_another_model_is_no_detector(tmp_path):
    with pytest.raises(ModelError, match="'clip' model is no detector"):
        load_detector(str(save_clip(tmp_path)), "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no detector could be loaded"):
        load_detector(str(tmp_path), "cpu")


@pytest.mark.slow
def test_the_bundled_model_shows_more_of_what_is_asked_with_guidance():
    from diffpref.config import Model
    from diffpref.loops.opening import load_model, make_sampler
    from diffpref.sampling import SamplerSettings

    asked = load_prompt_set("shapes_geneval:24")
    family = load_model(Model(family="sdxl", path="bundled:shapes-sdxl"), "cpu")
    reward = rewards.load("geneval", detector="shapes", rule="soft")
    found = []
    for scale in (1.0, 4.0):
        settings = SamplerSettings(num_inference_steps=15, guidance_scale=scale, resolution=64)
        pictures = make_sampler(family, settings, "fp32")(list(asked.prompts), list(range(24)))
        found.append(float(reward.score(pictures, asked.prompts, asked.metadata).mean()))
    assert 0.3 < found[0] < 0.85 < found[1]
