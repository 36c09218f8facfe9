"""The attention kernel: native equals diffusers' default, and what is missing is said in one line."""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, JointAttnProcessor2_0

from diffpref.core.errors import ConfigError
from diffpref.models import registry
from diffpref.models.attention import set_attention


def ask(family: Any) -> torch.Tensor:
    noisy = torch.randn(2, *family.latent_shape(64), generator=torch.Generator().manual_seed(0))
    inputs = {"noisy": noisy, "timesteps": torch.tensor([0.5, 0.01] if family.name == "sd3" else [500, 10])}
    with torch.no_grad():
        return family.forward(family.network, inputs, family.encode_prompt(["a", "b"], 64))


@pytest.mark.parametrize("name", [n for n in registry if registry.get(n).likelihood == "denoising"])
@pytest.mark.parametrize("backend", ["auto", "native"])
def test_row_42_native_is_the_default_and_equals_plain_attention(name: str, backend: str) -> None:
    family = registry.get(name).tiny()
    default = ask(family)
    assert set_attention(family.network, backend) == "native"
    native = JointAttnProcessor2_0 if name == "sd3" else AttnProcessor2_0
    assert {type(p) for p in family.network.attn_processors.values()} == {native}
    assert torch.equal(ask(family), default)
    if native is JointAttnProcessor2_0:  # diffusers has no plain form of it
        return
    family.network.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(ask(family), default, rtol=0, atol=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("xformers") is not None and torch.cuda.is_available(), reason="xformers runs here"
)
def test_row_42_xformers_that_does_not_run_is_one_line_and_native(caplog: pytest.LogCaptureFixture) -> None:
    family = registry.get("sdxl").tiny()
    default = ask(family)
    with caplog.at_level(logging.WARNING):
        assert set_attention(family.network, "xformers") == "native"
    (record,) = caplog.records
    assert record.getMessage().startswith("attention: xformers is not usable here (")
    assert record.getMessage().endswith("; using native") and "\n" not in record.getMessage()
    assert torch.equal(ask(family), default)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'xformers'"),
        ImportError("undefined symbol: _ZN3c1\nbuilt for another torch"),
        ValueError("torch.cuda.is_available() should be True"),
        NotImplementedError(),
        RuntimeError("no kernel image is available"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_row_42_however_xformers_fails_the_answers_stay(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Any) -> None:
        raise error

    family = registry.get("sd").tiny()
    plain = ask(family)
    monkeypatch.setattr(type(family.network), "enable_xformers_memory_efficient_attention", fails)
    with caplog.at_level(logging.WARNING):
        assert set_attention(family.network, "xformers") == "native"
    (record,) = caplog.records
    assert record.getMessage().startswith("attention: xformers is not usable here (")
    assert "\n" not in record.getMessage() and "here ()" not in record.getMessage()
    torch.testing.assert_close(ask(family), plain, rtol=0, atol=1e-4)


def test_row_42_a_hidden_xformers_is_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    family = registry.get("sd").tiny()
    plain = ask(family)
    with caplog.at_level(logging.WARNING):
        assert set_attention(family.network, "xformers") == "native"
    assert len(caplog.records) == 1
    torch.testing.assert_close(ask(family), plain, rtol=0, atol=1e-4)


def test_another_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.attention: must be auto, native or xformers, got 'flash'"):
        set_attention(registry.get("sd").tiny().network, "flash")
