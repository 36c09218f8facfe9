"""CLAP: what is heard of a sound, by its definition, and the score by transformers' own calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_cases.clap import sounds
from tiny_clap import RATE, save_clap
from tiny_encoders import save_clip

from diffpref import rewards
from diffpref.core.contracts import Sound
from diffpref.core.errors import ModelError
from diffpref.rewards._resampling import resample
from diffpref.rewards.clap import PUBLISHED, quantised, repeated, windows_of


def tone(hertz: float, rate: int, seconds: float = 1.0, height: float = 0.5) -> np.ndarray:
    return (height * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


# ---- rates


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100, 96_000])
def test_a_tone_is_the_same_tone_at_another_rate(rate):
    found = resample(tone(1_000, rate), rate, 48_000)
    assert found.dtype == np.float32 and len(found) == 48_000
    inside = slice(2_000, -2_000)  # before and after the sound there is silence
    assert np.abs(found - tone(1_000, 48_000))[inside].max() < 1e-5


def test_what_the_lower_rate_cannot_hold_is_filtered_out():
    high, low = tone(15_000, 48_000), tone(3_000, 48_000)
    assert np.abs(resample(high, 48_000, 16_000)[500:-500]).max() < 1e-4
    assert np.abs(resample(high + low, 48_000, 16_000) - tone(3_000, 16_000))[500:-500].max() < 1e-4


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 400), st.sampled_from([8_000, 16_000, 44_100]), st.sampled_from([8_000, 16_000, 48_000]))
def test_length_and_constants_are_kept(length, rate, target):
    found = resample(np.full(length, 0.25), rate, target)
    assert len(found) == -(-length * target // rate)
    long = resample(np.full(length + 1_000, 0.25), rate, target)
    assert np.allclose(long[len(long) // 2 - 3 : len(long) // 2 + 3], 0.25, atol=1e-6)


def test_equal_rates_change_nothing_and_a_shift_in_time_stays_one():
    noise = np.random.default_rng(0).uniform(-1, 1, 900).astype(np.float32)
    assert np.array_equal(resample(noise, 8_000, 8_000), noise)
    later = resample(np.concatenate([np.zeros(80, np.float32), noise]), 8_000, 48_000)
    assert np.allclose(later[480:], resample(noise, 8_000, 48_000), atol=1e-6)


# ---- what is heard


def test_samples_are_stored_as_sixteen_bits():
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.5, 1e-5, 0.999999], np.float32)
    expected = np.array([0, 16383, -16383, 32767, -32767, 0, 32766]) / 32767
    assert np.allclose(quantised(samples), expected, atol=1e-8) and quantised(samples).dtype == np.float32
    assert np.array_equal(quantised(quantised(samples)[1:3]), quantised(samples)[1:3])


def test_short_sounds_are_repeated_whole_and_then_silent():
    sound = np.array([1.0, 2.0, 3.0])
    assert repeated(sound, 8).tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    assert repeated(sound, 3).tolist() == [1, 2, 3] and repeated(sound, 5).tolist() == [1, 2, 3, 0, 0]


def test_windows_of_long_sounds():
    sound = np.arange(11.0)

    def heard(samples: np.ndarray, length: int, windows: Any) -> list[tuple[list[float], int]]:
        return [(part.tolist(), count) for part, count in windows_of(samples, length, windows)]

    assert heard(sound, 4, "centre") == [([3, 4, 5, 6], 4)]
    assert heard(sound, 4, "mean") == [([0, 1, 2, 3], 4), ([4, 5, 6, 7], 4), ([8, 9, 10, 0], 3)]
    for windows in ("centre", "mean"):
        assert heard(sound[:4], 4, windows) == [([0, 1, 2, 3], 4)]
        assert heard(sound[:2], 5, windows) == [([0, 1, 0, 1, 0], 2)]


# ---- the score


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_clap(tmp_path_factory.mktemp("clap"), fused=request.param))


def by_transformers(folder: str, samples: np.ndarray, prompt: str) -> float:
    """The cosine by the library's own classes, for a sound of one second at the model's rate."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    inputs = ClapFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        out = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **inputs)
    return float((out.audio_embeds * out.text_embeds).sum() / out.audio_embeds.norm() / out.text_embeds.norm())


def test_score_is_the_cosine_by_transformers(folder):
    samples = quantised(np.random.default_rng(0).uniform(-0.7, 0.7, RATE).astype(np.float32))
    score = rewards.load("clap", folder).score([Sound(samples, RATE)], ["a dog barks"])
    assert float(score) == pytest.approx(by_transformers(folder, samples, "a dog barks"), abs=1e-5)


def test_half_a_second_is_heard_twice(folder):
    half = quantised(np.random.default_rng(1).uniform(-0.7, 0.7, RATE // 2).astype(np.float32))
    scores = rewards.load("clap", folder).score([Sound(half, RATE), Sound(np.tile(half, 2), RATE)], ["a bell"] * 2)
    assert float(scores[0]) == pytest.approx(float(scores[1]), abs=1e-6)
    assert float(scores[0]) == pytest.approx(by_transformers(folder, half, "a bell"), abs=1e-5)


def test_long_sounds_score_alike_at_each_call_and_by_their_windows(folder):
    long = np.random.default_rng(2).uniform(-0.7, 0.7, 3 * RATE).astype(np.float32)
    parts = [Sound(long[start : start + RATE], RATE) for start in range(0, 3 * RATE, RATE)]
    centre, mean = (rewards.load("clap", folder, windows=windows) for windows in ("centre", "mean"))
    alone = centre.score(parts, ["rain"] * 3)
    for _ in range(2):
        assert float(centre.score([Sound(long, RATE)], ["rain"])) == pytest.approx(float(alone[1]), abs=1e-6)
        assert float(mean.score([Sound(long, RATE)], ["rain"])) == pytest.approx(float(alone.mean()), abs=1e-6)
    assert centre.info.version != mean.info.version and centre.info.preprocessing != mean.info.preprocessing
    both = mean.score([parts[0], Sound(long, RATE)], ["wind", "rain"])
    assert float(both[1]) == pytest.approx(float(alone.mean()), abs=1e-6)


def test_a_last_shorter_window_counts_by_its_length(folder):
    long = np.random.default_rng(5).uniform(-0.7, 0.7, RATE + RATE // 4).astype(np.float32)
    parts = [Sound(long[:RATE], RATE), Sound(long[RATE:], RATE)]
    reward = rewards.load("clap", folder, windows="mean")
    first, last = reward.score(parts, ["rain"] * 2).tolist()
    assert float(reward.score([Sound(long, RATE)], ["rain"])) == pytest.approx((first + last / 4) / 1.25, abs=1e-6)
    assert abs(first - last) > 1e-3


def test_channels_are_averaged_and_rates_do_not_matter(folder):
    reward = rewards.load("clap", folder)
    one, other = tone(700, RATE), tone(1_900, RATE, height=0.3)
    stereo, mono, fast = (
        Sound(np.stack([one, other]), RATE),
        Sound((one + other) / 2, RATE),
        Sound((tone(700, 2 * RATE) + tone(1_900, 2 * RATE, height=0.3)) / 2, 2 * RATE),
    )
    scores = reward.score([stereo, mono, fast], ["a flute"] * 3)
    assert float(scores[0]) == float(scores[1]) and float(scores[2]) == pytest.approx(float(scores[1]), abs=5e-3)


def test_how_many_run_at_once_changes_nothing(folder):
    media, prompts = sounds(5), [f"sound {i}" for i in range(5)]
    few = rewards.load("clap", folder, windows="mean", micro_batch=1).score(media, prompts)
    assert torch.allclose(few, rewards.load("clap", folder, windows="mean").score(media, prompts), atol=1e-5)


# ---- the checkpoint


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_told_with_the_repository(tmp_path, missing):
    save_clap(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=rf"no file .*{PUBLISHED.repository} \(licence: Apache-2.0\)"):
        rewards.load("clap", str(tmp_path))


def test_missing_and_misshapen_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    file = save_clap(tmp_path) / "model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if "text_projection" not in name}, file, {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 4 weights, such as text_projection"):
        rewards.load("clap", str(tmp_path))
    save_file({**weights, "audio_projection.linear2.bias": torch.zeros(5)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match="holds no such model"):
        rewards.load("clap", str(tmp_path))


def test_a_pickle_is_opened_only_with_leave(tmp_path):
    from safetensors.torch import load_file

    save_clap(tmp_path)
    score = rewards.load("clap", str(tmp_path)).score([Sound(tone(500, RATE), RATE)], ["a hum"])
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled weights only"):
        rewards.load("clap", str(tmp_path))
    again = rewards.load("clap", str(tmp_path), allow_pickle=True)
    assert torch.equal(again.score([Sound(tone(500, RATE), RATE)], ["a hum"]), score)


def test_another_model_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"reward 'clap': .* lacks [0-9]+ weights") as caught:
        rewards.load("clap", str(save_clip(tmp_path)))
    assert "\n" not in str(caught.value)
