"""Whatever a bundled recipe trains, its reference is afterwards what the model was before, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.config import load_recipe, recipe_names
from diffpref.data import encode_png
from diffpref.models import load_family
from diffpref.models import registry as families
from diffpref.models.digest import digest
from diffpref.training import Trainer
from diffpref.training.checkpoints import newest_checkpoint

NONE_THERE = ("data", "rounds", "loops", "rewards", "captions")  # reward models have no reference
MOVING = ("seppo", "diffusion_nft")  # whose samples, or reference, change; see test_semi_policy_presets
OWN_DATA = ("dcpo", "rank_dpo")  # captions of candidates, several scores; see test_list_and_caption_presets
OF_CLIPS = ("video_dpo", "dense_dpo", "structural_dpo", "video_dpo_omniscore")  # see test_video_presets
RECIPES = [
    name
    for name, (kind, method, *_) in ((name, name.split("/")) for name in recipe_names())
    if kind not in NONE_THERE and method not in (*MOVING, *OWN_DATA, *OF_CLIPS)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline of each kind that a recipe names."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}
    kinds = {
        "sd": {},
        "sdxl": {},
        "sdxl_refiner": {"refiner": True},
        "sdxl_other": {"seed": 1},
        "sd3": {},
    }
    for name, options in kinds.items():
        family: Any = families.get(name.partition("_")[0])
        family.tiny(**options).pipeline().save_pretrained(folder / name)
        made[name] = folder / name
    lines = [{"prompt": f"{n}? ", "chosen": "yes", "rejected": "no, no"} for n in range(4)]
    for name, more in (("causal_lm", {}), ("vlm", {"gold": "yes, yes", "images": ["grey.png"]})):
        text: Any = families.get(name).tiny()
        text.save_network(text.network, folder / name, None)
        made[name], made[f"{name} data"] = folder / name, folder / f"{name}.jsonl"
        made[f"{name} data"].write_text("".join(json.dumps({**line, **more}) + "\n" for line in lines))
    noise = torch.randint(0, 256, (20, 24, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    (folder / "grey.png").write_bytes(encode_png(noise.numpy()))
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_row_34_the_reference_of_every_recipe_does_not_move(
    name: str, models: dict[str, Path], scored_store: Path, tmp_path: Path
) -> None:
    own = load_recipe(name, {"output": str(tmp_path / "run"), "data.source": str(scored_store)})
    texts = families.get(own.model.family).likelihood == "tokens"
    path = models["sdxl_refiner" if name.startswith("sdxl_refiner") else own.model.family]
    compared = models["sdxl_other"] if "reference" in own.roles else path  # a model of its own
    special: dict[str, Any] = {"model.max_sequence_length": 8} if own.model.family == "sd3" else {}
    if compared != path:
        special |= {"roles.reference.path": str(compared), "method.inversion_dpo.num_steps": 4}
    recipe = load_recipe(
        name,
        {
            "output": str(tmp_path / "run"),
            "model.path": str(path),
            "model.precision": "fp32",
            "model.revision": None,
            "model.variant": None,
            "data.source": str(models[f"{own.model.family} data"] if texts else scored_store),
            "data.score": None if texts else "oracle",
            "data.resolution": None if texts else 64,
            "optim.warmup_steps": 0,
            "optim.learning_rate": 1e-2,
            "training.steps": 2,
            "training.batch_size": 2,
            "training.accumulation": 1,
            **special,
        },
    )
    before = digest(load_family(recipe.model.family, str(compared), parts=("network",)).network.state_dict())
    trainer = Trainer(recipe)
    rows = list(trainer.steps())
    assert rows[1].get("rewards/margins") != 0.0 and rows[0]["grad_norm"] > 0  # the policy did move
    if "reference" not in trainer.plan.roles:
        assert trainer.moving.digests == {}
        return
    reference = trainer.moving.placed["reference"]
    assert trainer.moving.digests == {"reference": before} and reference.digest() == before
    assert reference.complaint() is None and not reference.held.network.training
    found = newest_checkpoint(trainer.output)
    assert found is not None and found.counters["digests"] == {"reference": before}
    held = dict(reference.held.network.named_parameters())
    if recipe.adapter.kind == "full":
        assert all(p.grad is None and not p.requires_grad for p in held.values())
        assert reference.held.network is not trainer.bare
    else:
        assert all(p.requires_grad == (".lora_" in key) for key, p in held.items())
    assert not any(m.training and m.p > 0 for m in reference.held.network.modules() if isinstance(m, torch.nn.Dropout))
