"""What the losses of reward models of pictures become in a limit of another: statement -> the two."""

import torch

from diffpref.objectives import (
    bradley_terry,
    bradley_terry_aspects,
    bradley_terry_ties,
    hps_ranking,
    pickscore,
    reward_plackett_luce,
    uncertain_bradley_terry,
)

PAIR = "policy_chosen_score policy_rejected_score"

TABLE = {
    "pickscore with certain labels is bradley_terry": lambda x: (
        pickscore(**x(PAIR), preference=x.zero),
        bradley_terry(**x(PAIR), preference=x.zero),
    ),
    "bradley_terry is reward_plackett_luce of two": lambda x: (
        bradley_terry(**x(PAIR)),
        reward_plackett_luce(
            policy_list_score=torch.stack([x["policy_chosen_score"], x["policy_rejected_score"]], dim=1),
            ranks=torch.tensor([[0, 1]]).expand(len(x.one), 2),
        ),
    ),
    "hps_ranking of two is a hinge of the margin": lambda x: (
        hps_ranking(
            policy_list_score=torch.stack([x["policy_chosen_score"], x["policy_rejected_score"]], dim=1),
            ranks=torch.tensor([[0, 1]]).expand(len(x.one), 2),
            margin=0.7,
        ),
        (0.7 - (x["policy_chosen_score"] - x["policy_rejected_score"])).clamp(min=0),
    ),
    "uncertain_bradley_terry without deviations is bradley_terry": lambda x: (
        uncertain_bradley_terry(
            **x(PAIR),
            policy_chosen_log_std=-30 * x.one,
            policy_rejected_log_std=-30 * x.one,
            preference=x["preference"],
        ),
        bradley_terry(**x(PAIR), preference=x["preference"]),
    ),
    "bradley_terry_aspects of one aspect is bradley_terry_ties": lambda x: (
        bradley_terry_aspects(
            policy_chosen_scores=x["policy_chosen_score"][:, None],
            policy_rejected_scores=x["policy_rejected_score"][:, None],
            preferences=x["preference"][:, None],
            threshold=0.4,
        ),
        bradley_terry_ties(**x(PAIR), preference=x["preference"], threshold=0.4),
    ),
}
