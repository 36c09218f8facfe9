"""Vision-language models as rewards ask them: pictures and words go in; texts, numbers or hidden states come out.

Each question becomes tensors by itself and runs together only with others of the very same shapes: nothing is padded,
so that what is answered does not depend on what else is asked, but for the rounding of larger products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.core.media import Clip
from diffpref.models.decoders import decoder_of, head_of, load_decoder, read_context
from diffpref.rewards._weights import UNREADABLE, Precision, first_line

__all__ = ["Part", "Question", "VisionLanguage", "grouped", "open_processor", "open_vlm", "question_tensors"]

HELD_BYTES = 2**29
"""Of the tensors that are made ahead of the batch that runs."""
Part: TypeAlias = "str | Image.Image | Clip"
_SEQUENCES = {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": 0}
"""What a processor says of each token -> what it says of a token of text that is appended."""


@dataclass(frozen=True)
class Question:
    """What a user says to a model.

    Args:
        parts: texts, RGB pictures and videos (`Clip` of (F, H, W, 3) uint8 frames) in the order in which they stand.
        system: what is said before, in the system's name; ``""`` for nothing.
    """

    parts: tuple[Part, ...]
    system: str = ""

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(part for part in self.parts if isinstance(part, str))


def open_processor(owner: str, path: str | Path) -> Any:
    """Load the tokenizer, the image processor and the chat template; code of a repository is never run.

    Raises:
        ModelError: there is no processor for pictures and text.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(path), trust_remote_code=False)
    except (*UNREADABLE, ImportError) as error:
        raise ModelError(f"reward '{owner}': {path} holds no processor of transformers: {first_line(error)}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelError(f"reward '{owner}': {path} has a {type(processor).__name__}, which reads no pictures")
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def question_tensors(processor: Any, question: Question, **processing: Any) -> dict[str, Tensor]:
    """Return what a model reads of one question: each tensor as of a batch of one.

    Args:
        processor: of transformers; without a chat template, the parts are set one after the other.
        question: what to ask.
        processing: further arguments of the processor, such as ``min_pixels`` or ``do_sample_frames``.
    """
    text = _worded(processor, question)
    pictures = [part for part in question.parts if isinstance(part, Image.Image)]
    videos = [part for part in question.parts if isinstance(part, Clip)]
    shown: dict[str, Any] = {"images": [pictures]} if pictures else {}
    if videos:
        shown |= {"videos": [video.frames for video in videos], "do_sample_frames": False}
    tokenizer = processor.tokenizer
    if tokenizer.bos_token and text.startswith(tokenizer.bos_token):  # the template has written it already
        shown["add_special_tokens"] = False
    made = processor(text=[text], return_tensors="pt", **{**shown, **processing})
    return {name: tensor for name, tensor in made.items() if isinstance(tensor, Tensor)}


def _worded(processor: Any, question: Question) -> str:
    if not getattr(processor, "chat_template", None):
        picture, video = (str(getattr(processor, f"{kind}_token", f"<{kind}>")) for kind in ("image", "video"))
        words = [p if isinstance(p, str) else video if isinstance(p, Clip) else picture for p in question.parts]
        return question.system + "".join(words)
    content: list[dict[str, Any]] = []
    for part in question.parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append({"type": "video" if isinstance(part, Clip) else "image"})
    messages = [{"role": "user", "content": content}]
    if question.system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": question.system}]})
    worded: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return worded


def grouped(
    rows: Iterable[Mapping[str, Tensor]], run: Callable[[Tensors], Sequence[Any] | Tensor], micro_batch: int
) -> list[Any]:
    """Run rows in batches of equal shapes and return what came out, in the order of the rows.

    Args:
        rows: N times the tensors of a batch of one, such as `question_tensors` makes; no more of them are taken ahead
            than half a gigabyte holds, so that many large ones should come from a generator.
        run: the tensors of n rows, each joined along its first dimension -> n results.
        micro_batch: the largest n.
    """
    results: list[Any] = []
    for window in _windows(rows, micro_batch):
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, row in enumerate(window):
            alike.setdefault(tuple(sorted((name, *t.shape[1:]) for name, t in row.items())), []).append(number)
        found: list[Any] = [None] * len(window)
        for numbers in alike.values():
            for start in range(0, len(numbers), micro_batch):
                some = numbers[start : start + micro_batch]
                batch = {name: torch.cat([window[number][name] for number in some]) for name in window[some[0]]}
                for number, result in zip(some, run(batch), strict=True):
                    found[number] = result
        results += found
    return results


def _windows(rows: Iterable[Mapping[str, Tensor]], micro_batch: int) -> Iterator[list[Mapping[str, Tensor]]]:
    """Yield rows by so many as memory has room for, and no fewer than a batch."""
    window: list[Mapping[str, Tensor]] = []
    held = 0
    for row in rows:
        window.append(row)
        held += sum(tensor.nbytes for tensor in row.values())
        if held >= HELD_BYTES and len(window) >= micro_batch:
            yield window
            window, held = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class VisionLanguage:
    """A model that answers questions about pictures.

    Args:
        owner: the reward, for messages.
        network: an image-text-to-text model of transformers, frozen.
        processor: its processor.
        micro_batch: questions that run at once.
        processing: further arguments of the processor.
    """

    owner: str
    network: Any
    processor: Any
    micro_batch: int = 1
    processing: Mapping[str, Any] = field(default_factory=dict)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of an answer, or of its beginning."""
        found: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return found

    @torch.no_grad()
    def answers(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """Return what the model says to each question: at each place its most probable token."""
        tokenizer = self.processor.tokenizer

        def run(batch: Tensors) -> list[str]:
            made = self.network.generate(
                **self.placed(batch),
                do_sample=False,
                num_beams=1,
                temperature=None,  # checkpoints that sample by themselves set these three, and transformers warns
                top_p=None,
                top_k=None,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            new = made[:, batch["input_ids"].shape[1] :]
            texts: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
            return texts

        return grouped(self.rows(questions, max_new_tokens), run, self.micro_batch)

    @torch.no_grad()
    def read(
        self, questions: Sequence[Question], reader: Callable[[Tensor], Tensor], answer: Sequence[int] = ()
    ) -> Tensor:
        """Return (N, ...) what a reader makes of the logits, which are float32 whatever the network's precision.

        Args:
            questions: N questions.
            reader: (n, L, V) logits, at the L places where the answer's tokens stand -> (n, ...).
            answer: L tokens that are given to the model as its answer; none: its first place alone, L = 1.
        """
        head, decoder, length = head_of(self.network), decoder_of(self.network), max(1, len(answer))

        def run(batch: Tensors) -> Tensor:
            hidden = decoder(**self.placed(_continued(batch, answer[:-1])), use_cache=False).last_hidden_state
            hidden = hidden[:, -length:]
            logits = head.logits(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
            return reader(logits).cpu()

        return torch.stack(grouped(self.rows(questions, length), run, self.micro_batch))

    def rows(self, questions: Iterable[Question], more: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield what the model reads of each question, for `grouped`.

        Args:
            questions: N questions.
            more: tokens for which there must be room after them.

        Raises:
            DataError: the processor cannot read a question, or it is too long; the message has its number.
        """
        room = read_context(self.network.config)
        for number, question in enumerate(questions):
            try:
                row = question_tensors(self.processor, question, **self.processing)
            except (ValueError, IndexError, TypeError) as error:
                raise DataError(f"reward '{self.owner}', question {number}: {first_line(error)}") from error
            if room is not None and row["input_ids"].shape[1] + more > room:
                raise DataError(
                    f"reward '{self.owner}', question {number}: {row['input_ids'].shape[1]} tokens and {more} of the"
                    f" answer, and the model reads {room}; shorten the prompt or make the picture smaller"
                )
            yield row

    def placed(self, batch: Tensors) -> dict[str, Tensor]:
        """Return a batch where the network is and, but for whole numbers, of its precision."""
        own = next(self.network.parameters())
        return {n: t.to(own.device, own.dtype if t.is_floating_point() else None) for n, t in batch.items()}


def _continued(batch: Tensors, answer: Sequence[int]) -> Tensors:
    """Append the tokens of an answer to every row."""
    if not answer:
        return batch
    ids = batch["input_ids"]
    more = ids.new_tensor(answer).expand(len(ids), -1)
    longer = {**batch, "input_ids": torch.cat([ids, more], dim=1)}
    for name, value in _SEQUENCES.items():
        if name in batch:
            longer[name] = torch.cat([batch[name], torch.full_like(more, value, dtype=batch[name].dtype)], dim=1)
    return longer


def open_vlm(
    owner: str,
    path: str | Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: int = 1,
    allow_pickle: bool = False,
    **processing: Any,
) -> VisionLanguage:
    """Load any image-text-to-text model of transformers with its processor; code of a repository is never run.

    Args:
        owner: the reward, for messages.
        path: folder or hub id.
        device: where it runs.
        precision: of the network.
        micro_batch: questions of equal shape that run at once.
        allow_pickle: accept weights that only a pickle holds.
        processing: further arguments of the processor.

    Raises:
        ModelError: nothing that can be loaded safely lies there, weights are missing, or it reads no pictures.
    """
    processor = open_processor(owner, path)
    try:
        network = load_decoder(str(path), dtype=getattr(torch, precision), allow_pickle=allow_pickle, pictures=True)
    except ModelError as error:
        raise ModelError(f"reward '{owner}': {str(error).removeprefix('model.path: ')}") from error
    if len(processor.tokenizer) > network.get_input_embeddings().weight.shape[0]:
        raise ConfigError(f"reward '{owner}': the tokenizer of {path} knows more words than its model embeds")
    network.eval().requires_grad_(False).to(device)
    return VisionLanguage(owner, network, processor, micro_batch, processing)
