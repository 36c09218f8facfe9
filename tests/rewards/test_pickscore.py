"""PickScore: its processor is another repository's; transformers 4 and 5 answer differently and score the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import save_clip

from diffpref import rewards
from diffpref.core.errors import ModelError
from diffpref.rewards._hf_clip import image_embeds, text_embeds

PICTURES = [np.random.default_rng(i).integers(0, 256, (48, 80, 3), dtype=np.uint8) for i in range(3)]
PROMPTS = ["a red circle", "a blue square", "a ring"]
PROCESSOR = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("pickscore"))


def test_the_processor_may_lie_elsewhere_and_is_part_of_the_version(folder, tmp_path):
    model, processor = tmp_path / "model", tmp_path / "processor"
    for target, wanted in ((model, False), (processor, True)):
        target.mkdir()
        for file in folder.iterdir():
            if (file.name in PROCESSOR) == wanted:
                shutil.copy(file, target)
    with pytest.raises(
        ModelError, match=r"has no tokenizer; .* pass processor, the hub id 'laion/CLIP-ViT-H-14-laion2B"
    ):
        rewards.load("pickscore", str(model))
    whole, apart = (
        rewards.load("pickscore", str(folder)),
        rewards.load("pickscore", str(model), processor=str(processor)),
    )
    assert torch.equal(whole.score(PICTURES, PROMPTS), apart.score(PICTURES, PROMPTS))
    config = (processor / "preprocessor_config.json").read_text()
    (processor / "preprocessor_config.json").write_text(config.replace("0.48145466", "0.5"))
    other = rewards.load("pickscore", str(model), processor=str(processor))
    assert other.info.version != apart.info.version
    assert not torch.equal(other.score(PICTURES, PROMPTS), apart.score(PICTURES, PROMPTS))


@torch.no_grad()
def test_both_return_types_of_transformers_give_the_projected_embedding(folder):
    from transformers import CLIPModel

    class Former(CLIPModel):
        """Returns what transformers 4 returned: the embedding itself."""

        def get_image_features(self, **given):
            return self.visual_projection(self.vision_model(**given).pooler_output)

        def get_text_features(self, **given):
            return self.text_projection(self.text_model(**given).pooler_output)

    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[2, 40, 41, 1], [2, 50, 60, 1]])
    now, former = CLIPModel.from_pretrained(folder).eval(), Former.from_pretrained(folder).eval()
    assert isinstance(former.get_image_features(pixel_values=pixels), torch.Tensor)
    whole = now(input_ids=tokens, pixel_values=pixels)
    for model in (now, former):
        images, texts = image_embeds(model, pixels), text_embeds(model, tokens, torch.ones_like(tokens))
        assert images.shape == texts.shape == (2, 12)
        assert torch.allclose(torch.nn.functional.normalize(images), whole.image_embeds, atol=1e-6)
        assert torch.allclose(torch.nn.functional.normalize(texts), whole.text_embeds, atol=1e-6)
