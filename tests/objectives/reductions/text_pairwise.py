"""What one objective of a pair becomes in a limit of another: statement -> the two, given tensors by their names."""

from diffpref.objectives import dpo, ipo

TABLE = {
    "dpo with a certain preference is dpo without one": lambda x: (
        dpo(**x("chosen_log_ratio rejected_log_ratio"), preference=x.one),
        dpo(**x("chosen_log_ratio rejected_log_ratio")),
    ),
    "ipo by length is ipo of the means where lengths are 1": lambda x: (
        ipo(**x("chosen_log_ratio rejected_log_ratio"), chosen_length=x.one, rejected_length=x.one),
        ipo(**x("chosen_log_ratio rejected_log_ratio"), length_normalize=False),
    ),
}
