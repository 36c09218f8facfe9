"""Guided candidates are functions of their ground truth and their keys, and say what they were drawn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffpref.cli import main
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.media import Clip
from diffpref.data import decode_image, encode_png, open_records, read_store, write_store
from diffpref.data.clips import encode_clip, read_clip
from diffpref.generation import GenerationRecipe, GuidedPlan, generate_guided, ground_truths
from diffpref.models import registry
from diffpref.models.roles import NetworkRole
from diffpref.sampling import SamplerSettings, SdeditSampler
from diffpref.shapes.grammar import captions
from diffpref.shapes.motion import moving_captions, render_clip
from diffpref.shapes.render import render

PICTURE = SamplerSettings(num_inference_steps=3, guidance_scale=2.0, batch_size=3, resolution=32)
CLIP = SamplerSettings(num_inference_steps=3, guidance_scale=2.0, batch_size=3, resolution=32, num_frames=3, fps=8.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four rendered scenes with their captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, caption in enumerate(captions("unseen")[:4]):
        (folder / f"{number}.png").write_bytes(encode_png(render(caption, np.random.default_rng(number))))
        (folder / f"{number}.txt").write_text(str(caption))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two rendered clips of eight frames with their captions."""
    folder = tmp_path_factory.mktemp("clips")
    for number, caption in enumerate(moving_captions("unseen")[:2]):
        moving = render_clip(caption, np.random.default_rng(number))
        (folder / f"{number}.webp").write_bytes(encode_clip(Clip(moving, 12.5)))
        (folder / f"{number}.txt").write_text(str(caption))
    return folder


def sampler(name: str, settings: SamplerSettings) -> SdeditSampler:
    family = registry.get(name).tiny()
    return SdeditSampler(family, NetworkRole(family, family.network), settings, "dense_dpo")


@pytest.fixture(scope="module")
def draw() -> SdeditSampler:
    return sampler("sd", PICTURE)


def plan_of(records: Sequence[Record], **changes: Any) -> GuidedPlan:
    return GuidedPlan(**{"truths": ground_truths(records), "settings": PICTURE, "unit_size": 3, **changes})


def contents(store: Any) -> dict[str, list[bytes]]:
    return {record.prompt: [candidate.bytes for candidate in record.candidates] for record in store}


def test_a_record_holds_candidates_of_one_strength_and_says_of_what(
    draw: SdeditSampler, pictures: Path, tmp_path: Path
) -> None:
    records = open_records(pictures)
    plan = plan_of(records, generator="sd tiny 123")
    store = generate_guided(plan, records, draw, tmp_path / "store")
    assert len(store) == 4 and store.manifest["generator"]["kind"] == "guided"
    for number, (record, truth) in enumerate(zip(store, plan.truths, strict=True)):
        content = (pictures / f"{number}.png").read_bytes()
        assert record.source == "guided" and record.prompt == (pictures / f"{number}.txt").read_text()
        assert record.meta == {
            "strength": repr(plan.strength_of(truth)),
            "ground_truth": hashlib.sha256(content).hexdigest(),
        }
        seeds = [candidate.seed for candidate in record.candidates]
        alone = draw([decode_image(content)] * 2, [record.prompt] * 2, seeds, [float(record.meta["strength"])] * 2)
        for candidate, expected in zip(record.candidates, alone, strict=True):
            assert candidate.generator.startswith("sd tiny 123, ddim, 3 steps, guidance 2")
            assert np.array_equal(np.asarray(decode_image(candidate.bytes or b"")), expected)
        assert seeds[0] != seeds[1] and record.candidates[0].bytes != record.candidates[1].bytes
    strengths = {record.meta["strength"] for record in store}
    assert len(strengths) == 4 and all(0.65 <= float(one) <= 0.8 for one in strengths)


def test_neither_the_order_nor_the_parts_of_the_store_matter(
    draw: SdeditSampler, pictures: Path, tmp_path: Path
) -> None:
    records = list(open_records(pictures))
    first = generate_guided(plan_of(records), records, draw, tmp_path / "a")
    turned = records[::-1]
    second = generate_guided(plan_of(turned, unit_size=1), turned, draw, tmp_path / "b")
    assert contents(first) == contents(second)
    assert {record.id for record in first} == {record.id for record in second}
    other = generate_guided(plan_of(records, seed=1), records, draw, tmp_path / "c")
    assert all(contents(other)[prompt] != made for prompt, made in contents(first).items())
    assert {record.id for record in first}.isdisjoint(record.id for record in other)


def test_an_interrupted_run_goes_on_and_a_finished_one_draws_nothing(
    draw: SdeditSampler, pictures: Path, tmp_path: Path
) -> None:
    records, asked = open_records(pictures), []  # type: ignore[var-annotated]
    plan, told = plan_of(records, unit_size=1), []  # type: ignore[var-annotated]

    def stops(*given: Any) -> Any:
        asked.append(given[1][0])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return draw(*given)

    with pytest.raises(KeyboardInterrupt):
        generate_guided(plan, records, stops, tmp_path / "store")
    asked.extend(["", ""])  # past the third
    store = generate_guided(plan, records, stops, tmp_path / "store", lambda *now: told.append(now))
    assert told == [(4, 8), (6, 8), (8, 8)] and asked[2] == asked[5]
    assert contents(store) == contents(generate_guided(plan, records, draw, tmp_path / "whole"))
    generate_guided(plan, records, lambda *given: pytest.fail("asked again"), tmp_path / "store")
    with pytest.raises(DataError, match=r"made by another plan: seed: 0 there, 5 here"):
        generate_guided(plan_of(records, unit_size=1, seed=5), records, draw, tmp_path / "store")
    fewer = plan_of(records[:3], unit_size=1)
    with pytest.raises(DataError, match="made by another plan: ground_truths: 4 there, 3 here"):
        generate_guided(fewer, records, draw, tmp_path / "store")


def test_clips_are_drawn_from_their_middle_and_keep_their_speed(clips: Path, tmp_path: Path) -> None:
    records, draw = open_records(clips), sampler("unet3d", CLIP)
    store = generate_guided(plan_of(records, settings=CLIP), records, draw, tmp_path / "a")
    for record, source in zip(store, records, strict=True):
        truth = read_clip(source.candidates[0])
        places = [int(place) for place in record.meta["frames"].split()]
        assert places == [3, 4, 5] and truth.frames.shape[0] == 8
        (expected,) = draw(
            [Clip(truth.frames[3:6], 12.5)],
            [record.prompt],
            [record.candidates[1].seed or 0],
            [float(record.meta["strength"])],
        )
        found = read_clip(record.candidates[1])
        assert np.array_equal(found.frames, expected.frames) and found.fps == 12.5
    thin = generate_guided(plan_of(records, settings=CLIP, fps=6.25), records, draw, tmp_path / "b")
    assert thin[0].meta["frames"] == "2 4 6" and read_clip(thin[0].candidates[0]).fps == 6.25
    long = SamplerSettings(num_inference_steps=3, resolution=32, num_frames=9, fps=8.0)
    with pytest.raises(DataError, match="has 8 frames, too few for 9"):
        generate_guided(plan_of(records, settings=long), records, draw, tmp_path / "c")


def record_of(identity: str, *shades: int, **told: Any) -> Record:
    made = [encode_png(np.full((8, 8, 3), shade, np.uint8)) for shade in shades]
    return Record(identity, "a", tuple(Candidate(bytes=one) for one in made), **told)


def test_the_ground_truth_of_a_pair_is_its_winner_and_copies_are_left_out() -> None:
    single, copy, other = record_of("a", 1), record_of("b", 1), record_of("c", 2)
    pair = record_of("d", 3, 4, judgements=(Judgement(0, 1, 0.2),))
    found = ground_truths([single, copy, other, pair])
    assert [(truth.record, truth.candidate) for truth in found] == [(0, 0), (2, 0), (3, 1)]
    digest = hashlib.sha256(pair.candidates[1].bytes or b"").hexdigest()
    assert found[2].sha256 == digest
    for strange in (record_of("e", 3, 4), record_of("e", 3, 4, judgements=(Judgement(0, 1, 0.5),)), record_of("e")):
        with pytest.raises(DataError, match=r"record 'e': has \d candidates, of which none is judged better"):
            ground_truths([strange])
    with pytest.raises(DataError, match=r"record 'f': .*has neither bytes nor a path"):
        ground_truths([Record("f", "a", (Candidate(text="words"),))])


def test_mistakes_in_plans_are_refused(pictures: Path, tmp_path: Path) -> None:
    records = open_records(pictures)
    for changes, said in (
        ({"candidates": 0}, "candidates: must be at least 1, got 0"),
        ({"strengths": (0.9, 0.5)}, r"strengths: must be a range in \(0, 1\], got 0.9 to 0.5"),
        ({"strengths": (0.0, 0.5)}, r"strengths: must be a range in \(0, 1\], got 0 to 0.5"),
        ({"beginning": "late"}, "beginning: must be one of stock, dense_dpo, got 'late'"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_of(records, **changes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there is no ground truth to draw from"):
        plan_of([])
    with pytest.raises(ShapeError, match="the sampler gave 0 candidates for 6 media"):
        generate_guided(plan_of(records), records, lambda *given: [], tmp_path / "store")


# ---------------------------------------------------------------- as a user types it


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("sd", "unet3d"):
        registry.get(name).tiny().pipeline().save_pretrained(folder / name)
    return folder


def recipe(models: Path, family: str, source: Path, folder: Path, **changes: Any) -> str:
    keys = {
        "model": {"family": family, "path": str(models / family)},
        "ground_truth": str(source),
        "candidates": 2,
        "num_inference_steps": 2,
        "guidance_scales": [1.0],
        "resolution": 32,
        "batch_size": 2,
        "rewards": ["oracle"],
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(keys))
    return str(folder / "recipe.yaml")


def test_generate_draws_and_scores_from_a_folder_of_pictures(
    models: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "copy.png").write_bytes((pictures / "0.png").read_bytes())
    (pictures / "copy.txt").write_text((pictures / "0.txt").read_text())
    words = [recipe(models, "sd", pictures, tmp_path, resolution=64), "--output", str(tmp_path / "store")]
    assert main(["generate", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["candidates"], found["repeated_prompts"]) == (4, 8, 1)
    before = contents(read_store(tmp_path / "store"))
    assert main(["generate", *words]) == 0
    said = capsys.readouterr().out
    assert "1 ground truths with their captions are repetitions and were left out" in said and "oracle" in said
    assert contents(read_store(tmp_path / "store")) == before
    (pictures / "copy.png").unlink()
    (pictures / "copy.txt").unlink()


def test_generate_draws_from_a_store_of_clips_and_sets_short_ones_aside(
    models: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    records = list(open_records(clips))
    short = encode_clip(Clip(np.zeros((2, 32, 32, 3), np.uint8), 8.0))
    records.append(Record("short", records[0].prompt, (Candidate(bytes=short),)))
    for number in range(200):  # of which one in a hundred may be unusable
        flat = np.full((3, 8, 8, 3), number, np.uint8)
        records.append(Record(f"flat-{number}", records[0].prompt, (Candidate(bytes=encode_clip(Clip(flat, 8.0))),)))
    write_store(tmp_path / "source", records)
    words = [recipe(models, "unet3d", tmp_path / "source", tmp_path, num_frames=3, unit_size=4, rewards=[])]
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:  # the first unit shows what all would
        from diffpref.generation import guided

        def stop(plan: Any, truths: Any, *rest: Any) -> Any:
            told.append(len(plan.truths))
            raise KeyboardInterrupt

        patch.setattr(guided, "_draw", stop)
        assert main(["generate", *words, "--output", str(tmp_path / "store")]) != 0
    assert told == [202] and "1 of 203 records are unusable and set aside" in caplog.text


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"prompts": "shapes:unseen:3"}, "prompts: give prompts or a ground_truth to draw from, one of them"),
        ({"ground_truth": None}, "prompts: give prompts or a ground_truth to draw from, one of them"),
        ({"guidance_scales": [1.0, 2.0]}, "guidance_scales: candidates of a ground_truth differ in noise alone"),
        ({"strengths": [0.8, 0.6]}, "strengths: must be a range in (0, 1], got [0.8, 0.6]"),
        ({"strengths": [0.8]}, "strengths: must be at least 2 items, got [0.8]"),
        ({"beginning": "late"}, "beginning: must be one of dense_dpo, stock, got 'late'"),
    ],
)
def test_mistakes_in_recipes_are_lines(
    changes: dict[str, Any],
    said: str,
    models: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [recipe(models, "sd", pictures, tmp_path, **changes), "--output", str(tmp_path / "store")]
    assert main(["generate", *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "store").exists()


def test_clips_for_a_model_of_pictures_are_refused(
    models: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe(models, "sd", clips, tmp_path, rewards=[]), "--output", str(tmp_path / "store")]
    assert main(["generate", *words]) == 2
    assert "is a clip of 8 frames; a picture is expected" in capsys.readouterr().err


def test_the_recipe_says_what_a_round_cannot_draw() -> None:
    from diffpref.loops.recipe import load_alignment

    drawn = {"generation.prompts": None, "generation.ground_truth": "data/clips", "output": "runs/x"}
    with pytest.raises(ConfigError, match=r"generation\.prompts: a round draws for prompts"):
        load_alignment("rounds/shapes", drawn)
    assert GenerationRecipe.model_fields["strengths"].get_default(call_default_factory=True) == [0.65, 0.8]
