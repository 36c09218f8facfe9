"""General preference models at toy size: as published, and as a run of diffpref leaves one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_texts import save_llama

from diffpref.models.heads import Heads, save_heads

__all__ = ["SIZE", "save_gpm", "save_run"]

SIZE = 4


def save_gpm(folder: Path, prompt_head: bool = True) -> Path:
    """Write a Llama for causal language modelling whose safetensors hold the two heads too."""
    save_llama(folder, "LlamaForCausalLM", seed=3, tie_word_embeddings=False)
    state = load_file(folder / "model.safetensors")
    random = torch.Generator().manual_seed(4)
    state["value_head.weight"] = torch.randn(SIZE, 32, generator=random)
    if prompt_head:
        state["prompt_head.weight"] = torch.randn(SIZE // 2, 32, generator=random) * 0.3
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_run(folder: Path) -> Path:
    """Write ``base/``, and beside it ``run/`` with ``model/``, ``heads/`` and a ``config.yaml`` that names the base."""
    base = save_llama(folder / "base", "LlamaForCausalLM", seed=5)
    run = folder / "run"
    save_llama(run / "model", "LlamaForCausalLM", seed=6)
    heads = Heads(32, 2, frozenset({"embedding"}), SIZE)
    random = torch.Generator().manual_seed(7)
    for parameter in heads.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    save_heads(heads, run / "heads")
    (run / "config.yaml").write_text(f"model: {{family: causal_lm, path: {base}}}\n")
    return run
