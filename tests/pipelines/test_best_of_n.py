"""Best of N: the stock pipeline's pictures, the reward's choice, and a round trip through DiffusionPipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffpref import pipelines, rewards
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError, NonFiniteError, ShapeError
from diffpref.models import registry as families
from diffpref.models.adapters import registry as adapters
from diffpref.pipelines import BestOfNOutput, BestOfNPipeline, best_of_n

CAPTION = "a red circle above a blue square"
FAST: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64, "guidance_scale": 2.0}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Brightness:
    """Prefers bright pictures; remembers what it was asked."""

    info = RewardInfo("brightness", "1", "Apache-2.0", (0.0, 255.0), needs_prompt=False)

    def __init__(
        self, value: Callable[[Image.Image], float] = lambda picture: float(np.asarray(picture).mean())
    ) -> None:
        self.value, self.asked = value, []  # type: ignore[var-annotated]

    def score(
        self, media: Sequence[Any], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> torch.Tensor:
        self.asked.append(list(prompts))
        return torch.tensor([self.value(picture) for picture in media])


# the pipeline's parts are those of Stable Diffusion and SDXL
KINDS = ["sd", "sdxl"]


@pytest.fixture(params=KINDS, scope="module")
def stock(request: Any) -> Any:
    pipeline = families.get(request.param).tiny().pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipe(stock: Any) -> Any:
    pipeline = BestOfNPipeline.from_pipe(stock, reward=Brightness())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def equal(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def test_the_best_candidate_of_each_prompt_is_returned_with_the_scores_of_all(pipe: Any) -> None:
    output = pipe([CAPTION, ""], num_candidates=3, seeds=[5, 6, 7], return_candidates=True, **FAST)
    assert isinstance(output, BestOfNOutput)
    assert output.seeds == [[5, 6, 7]] * 2
    for image, scores, index, candidates in zip(
        output.images, output.scores, output.indices, output.candidates, strict=True
    ):
        assert scores == pytest.approx([float(np.asarray(c).mean()) for c in candidates])
        assert len(set(scores)) == 3 and scores[index] == max(scores)
        assert equal(image, candidates[index]) and image.size == (64, 64)
    assert pipe.reward.asked == [[CAPTION] * 3, [""] * 3]


def test_a_seed_draws_the_same_picture_in_the_stock_pipeline(pipe: Any, stock: Any) -> None:
    output = pipe(CAPTION, seeds=[3, 9], negative_prompt="blurry", return_candidates=True, **FAST)
    for seed, picture in zip(output.seeds[0], output.candidates[0], strict=True):
        generator = torch.Generator().manual_seed(seed)
        (again,) = stock(CAPTION, generator=generator, negative_prompt="blurry", **FAST).images
        assert np.abs(np.asarray(again).astype(int) - np.asarray(picture).astype(int)).max() <= 1


def test_equal_seeds_and_equal_generators_give_equal_results(pipe: Any) -> None:
    def drawn(**how: Any) -> Any:
        return pipe(CAPTION, num_candidates=3, return_candidates=True, **how, **FAST)

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    first, second = drawn(generator=generator(1)), drawn(generator=generator(1))
    assert (first.scores, first.indices, first.seeds) == (second.scores, second.indices, second.seeds)
    assert all(equal(a, b) for a, b in zip(first.candidates[0], second.candidates[0], strict=True))
    assert drawn(seeds=first.seeds[0]).scores == first.scores
    assert drawn(generator=generator(2)).seeds != first.seeds
    torch.manual_seed(4)
    assert drawn().seeds != drawn().seeds


def test_a_prompts_candidates_do_not_depend_on_the_other_prompts(pipe: Any) -> None:
    together = pipe(["a", CAPTION, "b"], seeds=[1, 2], return_candidates=True, **FAST)
    alone = pipe(CAPTION, seeds=[1, 2], return_candidates=True, **FAST)
    assert together.scores[1] == alone.scores[0]
    assert all(equal(a, b) for a, b in zip(together.candidates[1], alone.candidates[0], strict=True))


def test_candidates_can_be_drawn_a_few_at_a_time(pipe: Any) -> None:
    whole, parts = (pipe(CAPTION, seeds=[1, 2, 3], batch_size=size, **FAST) for size in (None, 2))
    assert parts.scores[0] == pytest.approx(whole.scores[0], abs=0.02)


def test_of_equals_the_first_is_chosen_and_four_are_drawn_unless_said(pipe: Any) -> None:
    output = pipe(CAPTION, reward=Brightness(lambda _: 1.0), **FAST)
    assert output.indices == [0] and output.scores == [[1.0] * 4] and output.candidates is None


def test_arrays_and_tuples_as_diffusers_gives_them(pipe: Any) -> None:
    pictures = pipe([CAPTION, "b"], seeds=[1, 2], **FAST)
    images, scores, indices, seeds = pipe([CAPTION, "b"], seeds=[1, 2], output_type="np", return_dict=False, **FAST)
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.float32
    assert np.array_equal((images[0] * 255).round().astype(np.uint8), np.asarray(pictures.images[0]))
    assert (scores, indices, seeds) == (pictures.scores, pictures.indices, pictures.seeds)


def test_components_are_shared_not_copied(pipe: Any, stock: Any) -> None:
    assert pipe.unet is stock.unet and pipe.stock().unet is stock.unet
    assert type(pipe.stock()) is type(stock)
    again = BestOfNPipeline(**{name: part for name, part in stock.components.items() if name in pipe.components})
    assert again.vae is stock.vae


def test_a_saved_pipeline_with_a_named_reward_loads_through_diffusion_pipeline(stock: Any, tmp_path: Path) -> None:
    pipe = BestOfNPipeline.from_pipe(stock, reward="oracle", reward_options={"output": "facts"})
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=str(tmp_path), trust_remote_code=True)
    assert type(loaded) is BestOfNPipeline
    assert loaded.config.reward == "oracle" and loaded.config.reward_options == {"output": "facts"}
    assert type(loaded.stock()) is type(stock)
    if "force_zeros_for_empty_prompt" in stock.config:
        assert loaded.stock().config.force_zeros_for_empty_prompt == stock.config.force_zeros_for_empty_prompt
    for either in (pipe, loaded, BestOfNPipeline.from_pretrained(tmp_path)):
        either.set_progress_bar_config(disable=True)
        output = either(CAPTION, seeds=[1, 2], **FAST)
        assert output.scores == [rewards.load("oracle").score(_redrawn(pipe), [CAPTION] * 2).tolist()]
        assert either.reward.info.name == "oracle"


def _redrawn(pipe: Any) -> list[Image.Image]:
    return pipe(CAPTION, seeds=[1, 2], return_candidates=True, **FAST).candidates[0]


def test_a_stock_folder_loads_with_the_installed_file_as_custom_pipeline(stock: Any, tmp_path: Path) -> None:
    stock.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(
        tmp_path, custom_pipeline=best_of_n.__file__, trust_remote_code=True, reward="oracle"
    )
    assert type(loaded).__name__ == "BestOfNPipeline"
    loaded.set_progress_bar_config(disable=True)
    ours = BestOfNPipeline.from_pretrained(tmp_path, reward="oracle")
    ours.set_progress_bar_config(disable=True)
    assert loaded(CAPTION, seeds=[1], **FAST).scores == ours(CAPTION, seeds=[1], **FAST).scores


def test_an_objects_reward_is_not_saved(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert (index["reward"], index["reward_path"]) == (None, None)
    loaded = BestOfNPipeline.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no reward: give one"):
        loaded(CAPTION, **FAST)


def test_a_named_reward_is_loaded_from_its_path(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, path: str | None, **options: Any) -> Brightness:
        asked.append((name, path, options))
        return Brightness()

    monkeypatch.setattr(rewards, "load", load)
    pipe = BestOfNPipeline.from_pipe(
        stock, reward="pickscore", reward_path="somewhere", reward_options={"output": "cosine"}
    )
    assert asked == []  # the weights are loaded on first use
    pipe(CAPTION, num_candidates=1, **FAST)
    pipe(CAPTION, num_candidates=1, **FAST)
    assert asked == [("pickscore", "somewhere", {"output": "cosine"})]


def test_a_trained_lora_changes_what_is_drawn(tmp_path: Path) -> None:
    from diffpref.core.randomness import Random

    family = families.get("sdxl").tiny()
    plain = family.pipeline()
    plain.save_pretrained(tmp_path / "base")
    lora = adapters.get("lora")()
    for parameter in lora.install(family, Random(0))["adapter"]:
        parameter.data += 0.3
    lora.save(family, family.network, tmp_path / "lora")
    stock = DiffusionPipeline.from_pretrained(tmp_path / "base")
    pipe = BestOfNPipeline.from_pipe(stock, reward=Brightness())
    before = pipe(CAPTION, seeds=[1], **FAST).scores
    stock.load_lora_weights(tmp_path / "lora")
    assert pipe(CAPTION, seeds=[1], **FAST).scores != before


MISTAKES: dict[str, dict[str, Any]] = {
    "prompt: must be a text or a non-empty list of texts, got \\[\\]": {"prompt": []},
    "prompt: must be a text or a non-empty list of texts, got \\[3\\]": {"prompt": [3]},
    "num_candidates: must be at least 1, got 0": {"num_candidates": 0},
    "seeds: must be 3, one a candidate, got 1": {"num_candidates": 3, "seeds": [1]},
    "not both": {"seeds": [1], "generator": torch.Generator()},
    "generator: must be one torch.Generator, got list": {"generator": [torch.Generator()]},
    "batch_size: must be at least 1, got 0": {"batch_size": 0},
    "output_type: must be pil or np, got 'latent'": {"output_type": "latent"},
    "num_inference_step: no option of .*; did you mean 'num_inference_steps'": {"num_inference_step": 2},
    "num_images_per_prompt: no option of": {"num_images_per_prompt": 2},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_wrong_input_raises(pipe: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipe(**{"prompt": CAPTION, **MISTAKES[message]})


def test_wrong_scores_raise(pipe: Any) -> None:
    with pytest.raises(NonFiniteError, match="reward 'brightness' gave scores that are not finite"):
        pipe(CAPTION, seeds=[1], reward=Brightness(lambda _: float("nan")), **FAST)

    class Summed(Brightness):
        def score(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().score(*args, **kwargs).sum()

    with pytest.raises(ShapeError, match=r"gave \(\) scores for 2 pictures"):
        pipe(CAPTION, seeds=[1, 2], reward=Summed(), **FAST)


def test_wrong_parts_raise(stock: Any) -> None:
    with pytest.raises(ConfigError, match="unknown reward 'pickscor'; did you mean 'pickscore'"):
        BestOfNPipeline.from_pipe(stock, reward="pickscor")
    with pytest.raises(ConfigError, match="belong to a reward that is given by its name"):
        BestOfNPipeline.from_pipe(stock, reward=Brightness(), reward_path="x")
    with pytest.raises(ConfigError, match="give text_encoder_2 and tokenizer_2, or neither"):
        BestOfNPipeline(stock.vae, stock.text_encoder, stock.tokenizer, stock.unet, stock.scheduler, stock.text_encoder)


def test_the_registry_knows_pipelines_by_the_names_of_their_files() -> None:
    assert pipelines.registry.names() == ["best_of_n", "guided_pairs", "inversion"]
    assert pipelines.registry.get("best_of_n") is BestOfNPipeline
    with pytest.raises(ConfigError, match="unknown pipeline 'best_of_m'; did you mean 'best_of_n'"):
        pipelines.registry.get("best_of_m")


def test_importing_the_package_imports_no_diffusers() -> None:
    script = "import sys, diffpref.pipelines as p; p.registry.names(); assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
