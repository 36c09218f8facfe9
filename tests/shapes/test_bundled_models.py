"""The bundled models: float32 safetensors that stock libraries load, true cards, the promised accuracies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffpref.core.assets import resolve
from diffpref.core.files import sha256
from diffpref.core.randomness import Random

NAMES = ("sdxl", "clip", "pickscore", "hps")
STOCK = """
import sys
sys.modules["diffpref"] = None  # whoever needs it fails
import torch, open_clip
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPModel
pipe = StableDiffusionXLPipeline.from_pretrained(sys.argv[1])
parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
parts |= {"clip": CLIPModel.from_pretrained(sys.argv[2]), "pickscore": CLIPModel.from_pretrained(sys.argv[3])}
parts["hps"] = open_clip.create_model_and_transforms("local-dir:" + sys.argv[4])[0]
for name, part in parts.items():
    print(name, *sorted({str(p.dtype) for p in part.parameters()}))
picture = pipe("a red circle left of a blue square", num_inference_steps=2).images[0]
assert picture.size == (64, 64)
"""


def _folder(name: str) -> Path:
    return Path(resolve(f"bundled:shapes-{name}"))


@pytest.mark.slow
def test_stock_libraries_load_them_without_diffpref(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STOCK, *(str(_folder(name)) for name in NAMES)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(lines) == {"vae", "unet", "text_encoder", "text_encoder_2", "clip", "pickscore", "hps"}
    assert set(lines.values()) == {"torch.float32"}


def test_they_are_small_and_hold_nothing_but_text_and_safetensors() -> None:
    files = [path for name in NAMES for path in _folder(name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) <= 30e6


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_the_command_and_the_true_checksums(name: str) -> None:
    card = (_folder(name) / "README.md").read_text(encoding="utf-8")
    assert "python -m diffpref.pretraining." in card and "--seed" in card and "minutes" in card
    weights = sorted(_folder(name).rglob("*.safetensors"))
    assert weights and re.findall(r"`([0-9a-f]{64})`", card) == [sha256(path) for path in weights]


@pytest.mark.slow
def test_the_vae_loses_no_fact() -> None:
    from diffusers import AutoencoderKL

    from diffpref.pretraining.vae import accepted

    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(_folder("sdxl"), subfolder="vae")
    assert accepted(vae, "unseen", 100, Random(5)) >= 0.97


@pytest.mark.slow
def test_the_pipeline_knows_how_but_does_not_always_do_it_and_the_scorers_see_the_difference() -> None:
    from diffpref.models import load_family
    from diffpref.models.roles import NetworkRole
    from diffpref.pretraining.samples import draw_pool, pair_agreement
    from diffpref.rewards import load
    from diffpref.sampling import Sampler, SamplerSettings

    torch.set_num_threads(1)
    family = load_family("sdxl", "bundled:shapes-sdxl")
    settings = SamplerSettings(num_inference_steps=12, guidance_scale=1.5, batch_size=40)
    sampler = Sampler(family, NetworkRole(family, family.network), settings)
    pool = draw_pool(sampler, "unseen", 80, 3, seed=11)
    assert 0.35 <= (pool.num_right == 6).mean() <= 0.70
    for name in ("clip", "pickscore", "hps"):
        found = pair_agreement(load(name, f"bundled:shapes-{name}"), pool)
        assert found["sampled pairs"] > 60
        assert found["agreement with the oracle on sampled pairs"] >= 0.85, name
