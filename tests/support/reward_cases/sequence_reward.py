"""The reward ``sequence_reward``."""

from tiny_texts import answers, save_llama

from reward_cases import RewardCase

CASE = RewardCase(
    "sequence_reward",
    build=lambda folder: str(save_llama(folder, "LlamaForSequenceClassification", num_labels=1)),
    media=answers,
)
