"""DCPO: each side under its own caption, for every encoder of a family; with equal captions it is Diffusion-DPO."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Candidate, Caption, Context, Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.data import caption_of, read_store, write_store
from diffpref.methods.dcpo import DCPO
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
WON, LOST, TOLD = ["a red circle", "a sea"], ["a blue square", "a fog"], ["a circle", "water"]


def batch(family: DenoiserFamily, chosen: list[str], rejected: list[str]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (2, family.network.config.in_channels, 8, 8)
    media = {side: torch.randn(shape, generator=generator) for side in ("chosen", "rejected")}
    texts = {"": TOLD, "chosen": chosen, "rejected": rejected}
    told = {group: family.encode_prompt(several, 64) for group, several in texts.items()}
    return Batch((("record-0", 0), ("record-1", 0)), media, told, {}, family.encode_prompt([""], 64))


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_every_encoder_tells_each_side_its_own_caption(name: str) -> None:
    family = families.get(name).tiny()
    rows = DCPO().prepare(batch(family, WON, LOST), Context(family, {}, Random(0)))
    won, lost = family.encode_prompt(WON, 64).tensors, family.encode_prompt(LOST, 64).tensors
    assert rows.conditioning.tensors.keys() == won.keys()
    for tensor, found in rows.conditioning.tensors.items():
        assert torch.equal(found[rows.groups["chosen"]], won[tensor])
        assert torch.equal(found[rows.groups["rejected"]], lost[tensor])
        if tensor not in family.size_tensors:
            assert not torch.equal(won[tensor], lost[tensor])


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_with_equal_captions_it_is_diffusion_dpo_to_the_bit(name: str, share: float) -> None:
    family = families.get(name).tiny()
    given, context = batch(family, TOLD, TOLD), Context(family, {}, Random(0))
    rows = DCPO(empty_prompt_prob=share).prepare(given, context)
    plain = DiffusionDPO(empty_prompt_prob=share).prepare(given, context)
    for name, tensor in plain.inputs.items():
        assert torch.equal(rows.inputs[name], tensor)
    for name, tensor in plain.conditioning.tensors.items():
        assert torch.equal(rows.conditioning.tensors[name], tensor)
    assert {name: index.tolist() for name, index in rows.groups.items()} == {"chosen": [0, 1], "rejected": [2, 3]}
    with torch.no_grad():
        answers = [family.answer(family.network, one)["prediction"] for one in (rows, plain)]
    assert torch.equal(*answers)


def test_both_captions_of_a_pair_are_dropped_at_once() -> None:
    family = families.get("sd").tiny()
    pair = batch(family, WON, LOST)
    many = Batch(
        tuple((f"record-{n}", 0) for n in range(200)),
        {side: tensor[:1].expand(200, -1, -1, -1) for side, tensor in pair.media.items()},
        {group: told.take([0] * 200) for group, told in pair.conditioning.items()},
        {},
        pair.empty,
    )
    rows = DCPO(empty_prompt_prob=0.3).prepare(many, Context(family, {}, Random(0)))
    told, empty = rows.conditioning.tensors["prompt_embeds"], pair.empty.tensors["prompt_embeds"]
    dropped = (told == empty).flatten(1).all(dim=1).view(2, 200)
    assert torch.equal(dropped[0], dropped[1]) and 30 < dropped[0].sum() < 90


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ("generated", "generated_60")),
        ({"caption_mode": "caption"}, ("generated", "generated")),
        ({"caption_mode": "perturb", "perturb_level": 40}, ("prompt", "prompt_40")),
        ({"caption": "emu2", "perturb_level": 80}, ("emu2", "emu2_80")),
    ],
)
def test_the_modes_are_kinds_of_captions(options: dict[str, Any], kinds: tuple[str, str]) -> None:
    assert tuple(DCPO(**options).captions.values()) == kinds


def test_replication_regresses_on_the_noise_whatever_the_checkpoint_predicts() -> None:
    family = families.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]
    given, context = batch(family, WON, LOST), Context(family, {}, Random(0))
    noise = Random(0).normal("noise", given.keys, given.media["chosen"].shape[1:])
    forced, own = (DCPO(force_epsilon_target=force).prepare(given, context) for force in (True, False))
    assert torch.equal(forced.inputs["target"], noise.repeat(2, 1, 1, 1))
    assert torch.equal(forced.inputs["noisy"], own.inputs["noisy"])
    assert not torch.equal(own.inputs["target"], forced.inputs["target"])
    flow = families.get("sd3").tiny()
    with pytest.raises(ConfigError, match="a flow predicts velocities"):
        DCPO(force_epsilon_target=True).prepare(batch(flow, WON, LOST), Context(flow, {}, Random(0)))


# ---------------------------------------------------------------- runs


def captioned(record: Record) -> Record:
    def told(number: int, one: Candidate) -> Candidate:
        texts = {"generated": f"number {number} of {record.prompt}", "generated_60": f"{record.prompt}, {number}th"}
        return replace(one, captions=tuple(Caption(kind, text) for kind, text in texts.items()))

    return replace(record, candidates=tuple(told(n, one) for n, one in enumerate(record.candidates)))


@pytest.fixture(scope="module")
def store(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned") / "store"
    write_store(folder, [captioned(record) for record in read_store(scored_store)])
    return folder


def test_a_run_shows_each_side_its_own_caption_and_starts_at_zero(recipe_keys: Keys, store: Path) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method="dcpo", data__source=str(store))))
    trainer.setup()
    items = trainer.batches.sampler.batch(0, 2)
    batch = trainer.batches.batch(items)
    records, cache = read_store(store), trainer.batches.encoder.cache  # type: ignore[attr-defined]
    for group, kind in (("chosen", "generated"), ("rejected", "generated_60")):
        shown = [trainer.batches.items[index] for index, _ in items]
        texts = [caption_of(records[i.record_index], int(i.groups[group]), kind) for i in shown]  # type: ignore[arg-type]
        expected = cache.conditioning(texts)
        for name, tensor in batch.conditioning[group].tensors.items():
            assert torch.equal(tensor, expected.tensors[name])
    trainer.folder.release()
    rows = list(Trainer(build_recipe(recipe_keys(method="dcpo", data__source=str(store)))).steps())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and rows[0]["rewards/margins"] == 0
    assert all(0 < row["grad_norm"] < math.inf for row in rows)


def test_other_captions_are_other_data(recipe_keys: Keys, store: Path, tmp_path: Path) -> None:
    def changed(record: Record) -> Record:
        said = tuple(
            replace(one, captions=(*one.captions[:1], Caption("generated_60", "x"))) for one in record.candidates
        )
        return replace(record, candidates=said)

    write_store(tmp_path / "other", [changed(record) for record in read_store(store)])
    digests = []
    for source in (store, tmp_path / "other"):
        for mode in ("hybrid", "caption"):
            keys = recipe_keys(method={"dcpo": {"caption_mode": mode}}, data__source=str(source))
            trainer = Trainer(build_recipe({**keys, "output": str(tmp_path / f"{source.name}-{mode}")}))
            trainer.setup()
            digests.append(trainer.batches.digest()["content"])
            trainer.folder.release()
    assert digests[0] != digests[2] and digests[0] != digests[1] == digests[3]


def test_absent_captions_are_named_with_the_command(recipe_keys: Keys, store: Path, scored_store: Path) -> None:
    for source, said in (
        (scored_store, "16 of 16 chosen candidates have no caption of kind 'generated'"),
        (
            store,
            "16 of 16 rejected candidates have no caption of kind 'generated_80'; captions there are: generated (48)",
        ),
    ):
        keys = recipe_keys(method={"dcpo": {"perturb_level": 80}}, data__source=str(source))
        with pytest.raises(DataError) as error:
            next(iter(Trainer(build_recipe(keys)).steps()))
        assert said in str(error.value) and "\n" not in str(error.value)
        assert f"'diffpref caption captions/rules --source {source} --output FOLDER'" in str(error.value)
