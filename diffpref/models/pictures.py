"""Prompts with pictures, as a processor of transformers wants them; and a toy of a model that sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffpref.core.errors import DataError, ModelError
from diffpref.models.base import Network
from diffpref.models.decoders import load_tokenizer, tiny_tokenizer
from diffpref.models.tokenising import Text

__all__ = ["VISION", "load_processor", "tiny_processor", "tiny_seer", "with_pictures"]

_UNUSABLE = (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError)
VISION = "vision_"
"""What stands before the names of the processor's tensors in a row's conditioning."""
IMAGE = "<image>"
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def load_processor(path: str, *, revision: str | None = None) -> Any:
    """Load tokenizer, image processor and chat template; code of a repository is never run.

    Raises:
        ModelError: there is no processor for pictures and text.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(path, revision=revision, trust_remote_code=False)
    except _UNUSABLE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"model.path: {path} holds no processor that can be loaded ({first})") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelError(
            f"model.path: {path} has a {type(processor).__name__}, which reads no pictures; take model.family causal_lm"
        )
    processor.tokenizer = load_tokenizer(path, revision=revision)  # with a token that fills, as for any text
    return processor


def with_pictures(
    processor: Any, prompt: Text, completions: Sequence[Text], count: int, template: Mapping[str, Any]
) -> tuple[str, list[str], bool]:
    """Return a prompt as the text that a processor reads, the same with each completion, and whether they are plain.

    Args:
        processor: with a chat template, or without.
        prompt: text, or messages whose parts may be ``{"type": "image"}``.
        completions: of the same kind.
        count: pictures of the prompt.
        template: further arguments of the chat template.

    Raises:
        DataError: both kinds at once, or messages with places for another number of pictures.
    """
    plain = isinstance(prompt, str)
    if any(isinstance(completion, str) != plain for completion in completions):
        raise DataError("a prompt and its completions must be all texts or all lists of messages")
    if not getattr(processor, "chat_template", None):
        if not isinstance(prompt, str):
            raise DataError("the data hold messages, and the processor has no chat template; give plain texts")
        start = str(getattr(processor, "image_token", IMAGE)) * count + prompt
        return start, [start + str(completion) for completion in completions], True
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = _placed([_parted(message) for message in messages], count)
    answers = [
        [_parted(one) for one in ([{"role": "assistant", "content": c}] if isinstance(c, str) else c)]
        for c in completions
    ]
    start = processor.apply_chat_template(asked, add_generation_prompt=True, **template)
    return start, [processor.apply_chat_template([*asked, *answer], **template) for answer in answers], False


def _parted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list of parts."""
    content = message.get("content", "")
    return {**message, "content": [{"type": "text", "text": content}] if isinstance(content, str) else list(content)}


def _placed(messages: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return messages with a place for each picture: their own, or before everything that the user says first."""
    own = sum(part.get("type") == "image" for message in messages for part in message["content"])
    if own not in (0, count):
        raise DataError(f"the messages have places for {own} pictures, and the record holds {count}")
    if own == count:
        return messages
    first = next((k for k, message in enumerate(messages) if message["role"] == "user"), 0)
    parts = [*({"type": "image"} for _ in range(count)), *messages[first]["content"]]
    return [*messages[:first], {**messages[first], "content": parts}, *messages[first + 1 :]]


def tiny_processor() -> Any:
    """Return a processor of single bytes and pictures of 16 x 16 pixels, in four parts each."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    eyes = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        eyes,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )


def tiny_seer(processor: Any, seed: int = 0) -> Network:
    """Return a LLaVA of two layers over a CLIP tower of two, with random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    return LlavaForConditionalGeneration(config)
