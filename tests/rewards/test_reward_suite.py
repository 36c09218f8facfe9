"""Every reward keeps its contract: real classes, tiny random weights laid out as the published checkpoint is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_cases import RewardCase, cases

from diffpref import rewards
from diffpref.core.contracts import ImageEmbedder, Judge, Reward, Sound
from diffpref.core.errors import ConfigError, DataError, ModelError, ShapeError

CASES = cases()
PLAIN = {"image": np.zeros((64, 64, 3), np.uint8), "video": np.zeros((4, 32, 32, 3), np.uint8), "text": "a text"}
PLAIN["audio"] = Sound(np.zeros(100, np.float32), 48_000)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFPREF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[RewardCase, Reward]]:
    """Load the reward of a case; its checkpoint is written once."""
    paths: dict[str, str | None] = {}
    loaded: dict[tuple[Any, ...], Reward] = {}

    def load(name: str, **options: Any) -> tuple[RewardCase, Reward]:
        case = CASES[name]
        if name not in paths:
            paths[name] = case.build(tmp_path_factory.mktemp(name))
        key = (name, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = rewards.load(name, paths[name], **{**case.options, **options})
        return case, loaded[key]

    return load


def asked(case: RewardCase, count: int) -> list[Any]:
    return [case.media(count), case.prompts(count), case.metadata(count) if case.metadata else None]


def test_every_reward_has_a_case() -> None:
    files = {path.stem for path in Path(rewards.__file__).parent.glob("[a-z]*.py")}
    assert set(CASES) == files and files <= set(rewards.names())


@pytest.mark.parametrize("name", sorted(CASES))
def test_scores_are_float32_one_for_each_item_and_repeatable(opened: Any, name: str) -> None:
    case, reward = opened(name)
    scores = reward.score(*asked(case, 5))
    assert isinstance(reward, Reward) and scores.dtype == torch.float32 and scores.shape == (5,)
    assert torch.isfinite(scores).all() and scores.device.type == "cpu" and not scores.requires_grad
    assert torch.equal(scores, reward.score(*asked(case, 5)))
    assert reward.score([], [], [] if case.metadata else None).shape == (0,)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_score_does_not_depend_on_its_batch(opened: Any, name: str) -> None:
    case, reward = opened(name)
    media, prompts, metadata = asked(case, 5)
    together = reward.score(media, prompts, metadata)
    alone = [reward.score([media[i]], [prompts[i]], metadata and [metadata[i]]) for i in range(5)]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=case.tolerance)
    order = [3, 0, 4, 1, 2]
    mixed = [[part[i] for i in order] if part is not None else None for part in (media, prompts, metadata)]
    assert torch.allclose(reward.score(*mixed), together[order], rtol=0, atol=case.tolerance)


@pytest.mark.parametrize("name", sorted(CASES))
def test_another_item_changes_the_score(opened: Any, name: str) -> None:
    case, reward = opened(name)
    media, prompts, metadata = asked(case, 4)
    scores = reward.score(media, [prompts[0]] * 4, metadata and [metadata[0]] * 4)
    assert len(set(scores.tolist())) > 1


@pytest.mark.parametrize("name", sorted(CASES))
def test_another_prompt_changes_the_score_exactly_where_the_prompt_matters(opened: Any, name: str) -> None:
    case, reward = opened(name)
    media, prompts, metadata = asked(case, 4)
    scores = reward.score([media[0]] * 4, prompts, metadata)
    assert (len(set(scores.tolist())) > 1) == case.prompt_matters
    if not hasattr(reward, "compare"):  # what judges compare with is in the metadata, and they read the prompt too
        assert reward.info.needs_prompt == (case.prompt_matters and not reward.info.needs_metadata)


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_says_what_it_is(opened: Any, name: str) -> None:
    _, reward = opened(name)
    info = reward.info
    assert info.name == name and info.version and info.licence
    assert info.range[0] < info.range[1] and not any(map(math.isnan, info.range))
    assert info.pair_scale is None or info.pair_scale > 0
    assert importlib.import_module(f"diffpref.rewards.{name}").__doc__


@pytest.mark.parametrize("name", sorted(CASES))
def test_aspects_are_scored_as_they_are_told(opened: Any, name: str) -> None:
    case, reward = opened(name)
    if not reward.info.aspects:
        pytest.skip("one score only")
    found = reward.score_aspects(*asked(case, 3))
    assert tuple(found) == reward.info.aspects
    assert all(scores.shape == (3,) and scores.dtype == torch.float32 for scores in found.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_judges_give_probabilities_of_each_pair_alone(opened: Any, name: str) -> None:
    case, reward = opened(name)
    if not hasattr(reward, "compare"):
        pytest.skip("compares nothing")
    first, second, prompts = case.media(5), case.media(5)[::-1], case.prompts(5)
    wins = reward.compare(first, second, prompts)
    assert isinstance(reward, Judge) and wins.dtype == torch.float32 and wins.shape == (5,)
    assert ((wins > 0) & (wins < 1)).all() and wins.device.type == "cpu" and not wins.requires_grad
    alone = [reward.compare([first[i]], [second[i]], [prompts[i]]) for i in range(5)]
    assert torch.allclose(wins, torch.cat(alone), rtol=0, atol=case.tolerance) and len(set(wins.tolist())) > 1
    assert reward.compare([], [], []).shape == (0,)
    for broken in ((first, second[:4], prompts), (first, second, prompts[:4])):
        with pytest.raises(ShapeError):
            reward.compare(*broken)
    for kind, item in PLAIN.items():
        if kind != reward.info.media:
            with pytest.raises(DataError, match=r"item 1|got"):
                reward.compare(first[:2], [second[0], item], prompts[:2])


@pytest.mark.parametrize("name", sorted(CASES))
def test_items_of_another_kind_are_refused_with_their_number(opened: Any, name: str) -> None:
    case, reward = opened(name)
    media, prompts, metadata = asked(case, 2)
    for kind, item in PLAIN.items():
        if kind != reward.info.media:
            with pytest.raises(DataError, match=r"item 1|got"):
                reward.score([media[0], item], prompts, metadata)


@pytest.mark.parametrize("name", sorted(CASES))
def test_as_many_prompts_as_items(opened: Any, name: str) -> None:
    case, reward = opened(name)
    media, prompts, metadata = asked(case, 3)
    with pytest.raises(ShapeError, match="3 items but 2 prompts"):
        reward.score(media, prompts[:2], metadata)
    if metadata:
        with pytest.raises(ShapeError, match="metadata"):
            reward.score(media, prompts, metadata[:2])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_half_precision_makes_no_false_ties(opened: Any, name: str, precision: str) -> None:
    import inspect

    if "precision" not in inspect.signature(rewards.registry.get(name)).parameters:
        pytest.skip("runs no network")
    case, full = opened(name)
    _, half = opened(name, precision=precision)
    media, prompts, metadata = asked(case, 8)
    exact, rounded = full.score(media, prompts, metadata), half.score(media, prompts, metadata)
    assert len(set(rounded.tolist())) == len(set(exact.tolist()))
    assert half.info.version != full.info.version


@pytest.mark.parametrize("name", sorted(CASES))
def test_pixels_score_as_pictures_do_and_have_a_gradient(opened: Any, name: str) -> None:
    case, reward = opened(name)
    assert reward.info.differentiable == hasattr(reward, "score_tensors")
    if not reward.info.differentiable:
        pytest.skip("not differentiable")
    media, prompts, _ = asked(case, 3)
    pixels = torch.stack([torch.from_numpy(np.asarray(item)).movedim(-1, -3) for item in media]).float() / 255
    pixels.requires_grad_()
    scores = reward.score_tensors(pixels, prompts)
    expected = reward.score(media, prompts)
    assert torch.allclose(scores, expected, rtol=2e-2, atol=1e-2 * max(1.0, float(expected.abs().max())))
    scores.sum().backward()
    assert pixels.grad is not None and pixels.grad.flatten(1).norm(dim=1).min() > 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_missing_is_named_with_its_repository_and_licence(name: str, tmp_path: Path) -> None:
    published = getattr(importlib.import_module(f"diffpref.rewards.{name}"), "PUBLISHED", None)
    if published is None:
        pytest.skip("reads no published checkpoint")
    with pytest.raises((ModelError, ConfigError)) as caught:
        rewards.load(name, str(tmp_path), **CASES[name].options)
    for word in (published.files[0], published.repository, published.licence):
        assert word in str(caught.value)
    with pytest.raises(ConfigError, match=published.repository.replace("(", r"\(")):
        rewards.load(name, None, **CASES[name].options)


@pytest.mark.parametrize("name", sorted(CASES))
def test_embeddings_of_pictures_are_directions_independent_of_the_batch(opened: Any, name: str) -> None:
    case, reward = opened(name)
    if not isinstance(reward, ImageEmbedder):
        pytest.skip("embeds no pictures")
    media = case.media(5)
    embeds = reward.embed_images(media)
    assert embeds.dtype == torch.float32 and embeds.dim() == 2 and len(embeds) == 5 and not embeds.requires_grad
    assert torch.allclose(embeds.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(embeds, torch.cat([reward.embed_images([item]) for item in media]), atol=1e-5)
    assert float((embeds @ embeds.T).fill_diagonal_(0).max()) < 1 - 1e-6
    assert len(reward.embed_images([])) == 0
    with pytest.raises(DataError, match="item 1"):
        reward.embed_images([media[0], "a text"])
