"""The reward ``sentence_similarity``."""

import json
from pathlib import Path

from tiny_texts import answers, save_bert

from reward_cases import RewardCase, sentences


def build(folder: Path) -> str:
    """A BERT with the files that sentence-transformers puts beside it."""
    save_bert(folder, "BertModel")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    return str(folder)


CASE = RewardCase(
    "sentence_similarity",
    build=build,
    media=answers,
    metadata=lambda count: [{"reference": text} for text in sentences(count)],
)
