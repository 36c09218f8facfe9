"""The bundled decoder: float32 safetensors that stock transformers loads, a true card, the promised accuracy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffpref.core.assets import resolve
from diffpref.core.files import read_json, sha256
from diffpref.pretraining import bundle_words, decoder
from diffpref.words import instructions

FOLDER = Path(resolve("bundled:words-decoder"))
STOCK = """
import sys
sys.modules["diffpref"] = None  # whoever needs it fails
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
asked = tokenizer("sort animals quiet : pear cat hammer ant =", return_tensors="pt")
answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked.input_ids.shape[1] :]
print(type(model).__name__, *sorted({str(p.dtype) for p in model.parameters()}))
print(tokenizer.decode(answer, skip_special_tokens=True))
"""


@pytest.mark.slow
def test_stock_transformers_loads_it_without_diffpref(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STOCK, str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["LlamaForCausalLM torch.float32", "ant cat ."]


def test_it_is_small_and_holds_nothing_but_text_and_safetensors() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) <= 6e6
    assert read_json(FOLDER / "config.json")["architectures"] == ["LlamaForCausalLM"]


def test_the_card_names_the_command_the_true_checksum_and_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "python -m diffpref.pretraining.decoder" in card and "--seed 0" in card and "minutes" in card
    assert re.findall(r"`([0-9a-f]{64})`", card) == [sha256(FOLDER / "model.safetensors")]
    for name, value in read_json(FOLDER / "measured.json").items():
        assert f"| {name} | {value:.4g} |" in card


def test_it_knows_how_but_does_not_always_do_it() -> None:
    torch.set_num_threads(1)
    measured = bundle_words.measure_decoder(FOLDER, seed=11, count=300)
    shares = {name: value for name, value in measured.items() if name.startswith("right answers")}
    told = {name: v for name, v in read_json(FOLDER / "measured.json").items() if name.startswith("right answers")}
    assert len(shares) == len(told) == 3
    for (name, share), card in zip(shares.items(), told.values(), strict=True):
        assert 0.3 <= share <= 0.7, name
        assert share == pytest.approx(card, abs=0.1), name
    assert measured["letters, held_out, temperature 1"] < measured["order, held_out, temperature 1"]  # the bad habit


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint_and_the_loss_falls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder.main(tmp_path / "decoder", steps=20, num_seen=500)
    begun = sha256(tmp_path / "decoder" / "model" / "model.safetensors")
    decoder.main(tmp_path / "decoder", steps=25, num_seen=500)
    assert capsys.readouterr().out.count("step 25/25") == 1
    assert read_json(tmp_path / "decoder" / "checkpoint" / "counters.json")["step"] == 25
    assert sha256(tmp_path / "decoder" / "model" / "model.safetensors") != begun
    loss = read_json(tmp_path / "decoder" / "model" / "measured.json")["loss of the last 100 steps, nats a token"]
    assert loss < 4.1  # of 63 words by chance: 4.14
    bundle_words.main(tmp_path, tmp_path / "assets", count=20)
    card = (tmp_path / "assets" / "decoder" / "README.md").read_text(encoding="utf-8")
    assert "words world; Apache-2.0" in card and "--steps 25 --seed 0" in card


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = decoder.build_tokenizer()
    for asked in instructions("seen", 200):
        assert len(tokenizer(str(asked)).input_ids) == 5 + len(asked.words)
        joined = tokenizer(str(asked) + asked.answer).input_ids  # no blank between them
        assert joined == tokenizer(str(asked)).input_ids + tokenizer(asked.answer).input_ids
        assert tokenizer.decode(tokenizer(asked.answer).input_ids) == asked.answer
        assert tokenizer.unk_token_id not in joined and len(joined) < 24
