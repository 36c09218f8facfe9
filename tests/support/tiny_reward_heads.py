"""Heads on vision-language models at toy size, with random weights, laid out as they are published."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_vlms import qwen2_vl_config, qwen2_vl_processor, widen

__all__ = ["before_4_52", "plain", "ranknet", "save_hps_v3", "tiny_qwen2_vl"]


def plain(state: Any) -> dict[str, torch.Tensor]:
    """Return tensors of their own memory."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def before_4_52(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give a Qwen2-VL the names that older transformers saved it by."""
    renamed = {re.sub(r"^model\.visual\.", "visual.", name): tensor for name, tensor in state.items()}
    return {re.sub(r"^model\.language_model\.", "model.", name): tensor for name, tensor in renamed.items()}


def tiny_qwen2_vl(folder: Path, tokens: list[str], seed: int = 0) -> Any:
    """Save config and processor of a Qwen2-VL, as published: without the tokens; return the network with them."""
    from transformers import Qwen2VLForConditionalGeneration

    processor = qwen2_vl_processor()
    config = qwen2_vl_config(processor.tokenizer)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.tokenizer.add_tokens(tokens, special_tokens=True)
    config.text_config.vocab_size = len(processor.tokenizer)
    return widen(Qwen2VLForConditionalGeneration(config), seed).eval()


def ranknet(width: int, seed: int = 1) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(width, 1024), torch.nn.ReLU(), torch.nn.Dropout(0.05), torch.nn.Linear(1024, 16)]
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()


def save_hps_v3(folder: Path, legacy: bool = True) -> Path:
    """One file with a whole Qwen2-VL and ``rm_head``; config and processor of the base beside it."""
    network = tiny_qwen2_vl(folder, ["<|Reward|>"])
    state = plain(network.state_dict())
    head = {f"rm_head.{name}": tensor for name, tensor in plain(ranknet(32).state_dict()).items()}
    save_file({**(before_4_52(state) if legacy else state), **head}, folder / "HPSv3.safetensors")
    return folder


VIDEO_TOKENS = ["<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"]
VIDEO_CONFIG: dict[str, Any] = {
    "data_config": {"fps": 2.0, "num_frames": None, "max_frame_pixels": 200704, "sample_type": "uniform"},
    "training_args": {"output_dir": "none"},
    "model_config": {"model_name_or_path": "/nowhere", "output_dim": 1, "use_special_tokens": True},
    "peft_lora_config": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "use_rslora": False},
    "inference_config": {
        "VQ_mean": 3.0, "VQ_std": 2.0, "MQ_mean": 1.0, "MQ_std": 1.5, "TA_mean": -2.0, "TA_std": 0.5
    },
}  # fmt: skip


def tiny_videoreward(folder: Path, outputs: int = 1) -> Any:
    """Return a Qwen2-VL with ``rm_head`` and a LoRA around it, as peft and the official code make it."""
    from peft import LoraConfig, get_peft_model

    network = tiny_qwen2_vl(folder, VIDEO_TOKENS)
    network.rm_head = torch.nn.Linear(32, outputs, bias=False)
    torch.nn.init.normal_(network.rm_head.weight)
    lora = {name: VIDEO_CONFIG["peft_lora_config"][f"lora_{name}"] for name in ("r", "alpha")}
    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    wrapped = get_peft_model(network, LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=layers))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # which peft starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped.eval()


def save_videoreward(folder: Path, outputs: int = 1, legacy: bool = True) -> Path:
    """A pickle with peft's names in ``checkpoint-<step>``; an older one beside it, which is not to be read."""
    state = plain(tiny_videoreward(folder, outputs).state_dict())
    if legacy:
        inner = before_4_52({name.removeprefix("base_model.model."): tensor for name, tensor in state.items()})
        state = {f"base_model.model.{name}": tensor for name, tensor in inner.items()}
    for step in (900, 11352):
        (folder / f"checkpoint-{step}").mkdir()
    torch.save(state, folder / "checkpoint-11352" / "model.pth")
    (folder / "checkpoint-900" / "model.pth").write_bytes(b"")
    (folder / "model_config.json").write_text(json.dumps(VIDEO_CONFIG))
    return folder


def tiny_videoscore(tokenizer: Any, outputs: int = 5) -> tuple[Any, torch.nn.Linear]:
    """Return an Idefics2 below its head, and the head."""
    from transformers import Idefics2Config, Idefics2Model

    wide = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    resampler = {"hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2}
    config = Idefics2Config(
        vision_config={**wide, "hidden_size": 16, "num_attention_heads": 2, "image_size": 70, "patch_size": 14},
        perceiver_config={**resampler, "resampler_head_dim": 16, "num_key_value_heads": 1},
        text_config={
            **wide,
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    network = widen(Idefics2Model(config), 3).eval()
    return network, torch.nn.Linear(32, outputs)


def videoscore_processor() -> Any:
    """Return a processor of bytes and of small pictures, each three tokens between two that mark them."""
    from transformers import Idefics2ImageProcessor, Idefics2Processor

    from diffpref.models.decoders import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 2048
    eyes = Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 70}, do_image_splitting=False)
    return Idefics2Processor(eyes, tokenizer, image_seq_len=3)


def save_videoscore(folder: Path, outputs: int = 5) -> Path:
    """Two shards of a sequence classifier, its config, its processor."""
    processor = videoscore_processor()
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    network, head = tiny_videoscore(processor.tokenizer, outputs)
    network.config.save_pretrained(folder)
    state = {f"model.{name}": tensor for name, tensor in plain(network.state_dict()).items()}
    state |= {f"score.{name}": tensor for name, tensor in plain(head.state_dict()).items()}
    names = sorted(state)
    for number, some in enumerate((names[::2], names[1::2]), 1):
        save_file({name: state[name] for name in some}, folder / f"model-{number:05d}-of-00002.safetensors")
    return folder
