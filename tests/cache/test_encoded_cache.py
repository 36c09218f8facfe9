"""Encoded once, found by content: what changes the content is a miss, and nothing else is."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.cache import EncodedCache, component_digest
from diffpref.core.contracts import Candidate
from diffpref.core.errors import DataError
from diffpref.data import View, decode_image, encode_png, image_tensor
from diffpref.models import load_family, registry
from diffpref.models.family import DenoiserFamily

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FAMILIES = [n for n in registry if (registry.get(n).likelihood, registry.get(n).samples) == ("denoising", "images")]


@pytest.fixture(params=FAMILIES)
def family(request: Any) -> DenoiserFamily:
    return registry.get(request.param).tiny()


def picture(seed: int, side: int = 64) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def candidate(seed: int) -> Candidate:
    content = picture(seed)
    return Candidate(bytes=content, sha256=hashlib.sha256(content).hexdigest())


def open_cache(folder: Path, family: DenoiserFamily, resolution: int = 64) -> EncodedCache:
    return EncodedCache(folder, family, resolution)


def misses(folder: Path, family: DenoiserFamily, resolution: int = 64, prompt: str = "a") -> tuple[int, int]:
    """How many images and captions another run would have to encode."""
    cache = open_cache(folder, family, resolution)
    return cache.encode_media([candidate(0)]), cache.encode_captions([prompt])


def test_what_is_read_is_what_the_family_encodes(family: DenoiserFamily, tmp_path: Path) -> None:
    cache = open_cache(tmp_path, family)
    candidates, captions = [candidate(i) for i in range(3)], ["a", "", "b"]
    assert (cache.encode_media(candidates), cache.encode_captions(captions)) == (3, 3)
    pixels = torch.stack([image_tensor(decode_image(c.bytes or b""), 64).pixels for c in candidates])
    wanted = family.encode_media(pixels)
    latents = cache.latents(candidates)
    torch.testing.assert_close(latents.mean, wanted.mean)
    torch.testing.assert_close(latents.std, wanted.std)
    rows = family.encode_prompt(captions, 64).tensors
    read = cache.conditioning(captions).tensors
    assert rows.keys() == read.keys()
    for name, tensor in rows.items():
        torch.testing.assert_close(read[name], tensor)
    assert torch.equal(cache.latents([candidates[2], candidates[0]]).mean, latents.mean[[2, 0]])


def test_the_same_content_is_never_encoded_twice(family: DenoiserFamily, tmp_path: Path) -> None:
    cache = open_cache(tmp_path, family)
    assert cache.encode_media([candidate(0), candidate(0)]) == 1
    assert cache.encode_media([candidate(0), candidate(1)]) == 1
    assert cache.encode_captions(["a", "a"]) == 1
    (tmp_path / "x.png").write_bytes(picture(0))
    same = [Candidate(path=str(tmp_path / "x.png")), Candidate(bytes=picture(0), generator="other", seed=5)]
    assert cache.encode_media(same) == 0
    assert torch.equal(cache.latents(same).mean, cache.latents([candidate(0)] * 2).mean)
    again = registry.get(family.name).tiny()
    assert misses(tmp_path, again) == (0, 0)


def test_a_tokenizer_that_was_used_and_a_saved_model_are_the_same_content(
    family: DenoiserFamily, tmp_path: Path
) -> None:
    assert misses(tmp_path / "cache", family) == (1, 1)
    family.encode_prompt(["used now"], 64)
    assert misses(tmp_path / "cache", family) == (0, 0)
    family.pipeline().save_pretrained(tmp_path / "model")
    for _ in range(2):
        loaded = load_family(family.name, str(tmp_path / "model"), parts=("vae", "text"))
        assert misses(tmp_path / "cache", loaded) == (0, 0)


def test_row_36_whatever_changes_the_content_is_a_miss(
    family: DenoiserFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every input of a key: image, view, resolution, VAE; caption, resolution, text encoders, tokenizers, family."""
    assert misses(tmp_path, family) == (1, 1)
    assert misses(tmp_path, family) == (0, 0)
    assert misses(tmp_path, family, prompt="another") == (0, 1)
    assert open_cache(tmp_path, family).encode_media([candidate(1)]) == 1
    for view in (View(mirrored=True), View(down=0.25), View(right=0.25)):
        assert open_cache(tmp_path, family).encode_media([candidate(0)], [view]) == 1
    assert misses(tmp_path, family, resolution=32) == (1, 1)
    with torch.no_grad():
        family.vae.encoder.conv_in.weight[0, 0, 0, 0] += 1e-6
    assert misses(tmp_path, family) == (1, 0)
    family.vae.register_to_config(scaling_factor=0.5)
    assert misses(tmp_path, family) == (1, 0)
    family.vae.register_to_config(shift_factor=0.5)
    assert misses(tmp_path, family) == (1, 0)
    with torch.no_grad():
        family.texts[-1].model.get_input_embeddings().weight[0, 0] += 1e-6
    assert misses(tmp_path, family) == (0, 1)
    family.texts[-1].model.config.hidden_act = "gelu"
    assert misses(tmp_path, family) == (0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(type(family), "name", "another family")
        assert misses(tmp_path, family) == (0, 1)
    text = family.texts[-1]
    text.tokenizer.model_max_length = 12
    assert misses(tmp_path, family) == (0, 1)
    family.texts = (*family.texts[:-1], replace(text, model=text.model.bfloat16()))
    assert misses(tmp_path, family) == (0, 1)


def test_an_entry_does_not_depend_on_what_was_encoded_beside_it(family: DenoiserFamily, tmp_path: Path) -> None:
    candidates, captions = [candidate(i) for i in range(18)], [f"caption {i}" for i in range(18)]
    whole, pieces = open_cache(tmp_path / "whole", family), open_cache(tmp_path / "pieces", family)
    whole.encode_media(candidates)
    whole.encode_captions(captions)
    for cut in (slice(17, 18), slice(3, 5), slice(0, 18)):
        pieces.encode_media(candidates[cut])
        pieces.encode_captions(captions[cut])
    assert torch.equal(whole.latents(candidates).mean, pieces.latents(candidates).mean)
    ours, theirs = whole.conditioning(captions).tensors, pieces.conditioning(captions).tensors
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_row_37_a_cache_killed_while_it_encodes_is_finished_with_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffpref.cache.encoded.SHARD", 16)
    family = registry.get("sd").tiny()
    candidates, captions = [candidate(i) for i in range(64)], [f"caption {i}" for i in range(64)]

    def content(folder: Path) -> tuple[str, int]:
        """Fill a cache; return a digest of all that is in it, and how much was there."""
        cache = open_cache(folder, family)
        there = 128 - cache.encode_media(candidates) - cache.encode_captions(captions)
        latents, told = cache.latents(candidates), cache.conditioning(captions)
        numbers = [latents.mean, latents.std, *(told.tensors[name] for name in sorted(told.tensors))]
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in numbers)).hexdigest(), there

    whole, _ = content(tmp_path / "whole")
    random, found = np.random.default_rng(0), []
    for files in (0, 0, 1, 2, 3, 4, 5, 6, 7):  # killed when this many of the eight files lie there, or a little later
        folder = tmp_path / f"{len(found)}"
        child = os.fork()
        if child == 0:
            cache = open_cache(folder, family)
            cache.encode_media(candidates)
            cache.encode_captions(captions)
            os._exit(0)
        until = time.monotonic() + 60
        while len(list(folder.glob("shard-*"))) < files and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        digest, there = content(folder)
        assert digest == whole and there % 16 == 0
        assert content(folder) == (whole, 128)
        found.append(there)
    assert len(set(found)) > 2, found  # killed at different places


def test_many_entries_share_a_file(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, registry.get("sd").tiny())
    assert cache.encode_captions(f"caption {i}" for i in range(600)) == 600
    assert len(list(tmp_path.glob("shard-*"))) == 2
    assert len(cache.conditioning(["caption 511", "caption 512", "caption 599"])) == 3


def test_what_is_encoded_stays_readable_without_the_encoders(family: DenoiserFamily, tmp_path: Path) -> None:
    cache = open_cache(tmp_path, family)
    cache.encode_media([candidate(0)])
    cache.encode_captions(["a"])
    cache.release()
    assert len(cache.latents([candidate(0)]).mean) == len(cache.conditioning(["a"])) == 1
    with pytest.raises(DataError, match="encoders were released"):
        cache.encode_captions(["b"])


def test_mistakes_are_refused(tmp_path: Path) -> None:
    family = registry.get("sd").tiny()
    cache = open_cache(tmp_path, family)
    with pytest.raises(DataError, match="this caption is not in the cache; encode it first"):
        cache.conditioning(["a"])
    with pytest.raises(DataError, match="this image is not in the cache"):
        cache.latents([candidate(0)])
    with pytest.raises(DataError, match="neither bytes nor a path"):
        cache.encode_media([Candidate()])
    with pytest.raises(DataError, match=r"missing\.png: cannot be read"):
        cache.encode_media([Candidate(path=str(tmp_path / "missing.png"))])
    with pytest.raises(DataError, match="cannot be decoded"):
        cache.encode_media([Candidate(bytes=b"no image")])
    family.drop("vae")
    with pytest.raises(DataError, match="needs the VAE and the text encoders"):
        open_cache(tmp_path, family)


def test_a_damaged_shard_is_an_error_not_a_miss(tmp_path: Path) -> None:
    family = registry.get("sd").tiny()
    open_cache(tmp_path, family).encode_captions(["a"])
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(DataError, match="damaged cache shard"):
        open_cache(tmp_path, family)


def test_a_digest_is_of_names_types_and_every_number() -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))

    start = component_digest(network())
    assert component_digest(network()) == start
    assert component_digest(network().bfloat16()) != start
    moved = network()
    moved[1].num_batches_tracked += 1
    assert component_digest(moved) != start
    assert component_digest(network(), network()) != start
