"""Names by which other libraries know an objective."""

from __future__ import annotations

import pytest

from diffpref.objectives import registry

TRL = {
    # DPOTrainer
    "sigmoid": "dpo",
    "hinge": "rso",
    "ipo": "ipo",
    "exo_pair": "exo_pair",
    "nca_pair": "nca_pair",
    "robust": "rdpo",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo_hard",
    "aot": "aot",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
    "sft": "nll",
    "sigmoid_norm": "ln_dpo",
    # DPOTrainer, once
    "aot_pair": "aot",
    "kto_pair": "kto_pair",
    # CPOTrainer, whose sigmoid, hinge and ipo are links of cpo; ORPOTrainer, KTOTrainer, BCOTrainer
    "simpo": "simpo",
    "alphapo": "alphapo",
    "cpo": "cpo",
    "orpo": "orpo",
    "kto": "kto",
    "apo_zero_unpaired": "apo_zero_unpaired",
    "bco": "bco",
}
OTHERS = {
    "dpo_norm": "ln_dpo",  # open-instruct
    "slic": "slic_hf",  # HALOs
    "dpo_positive": "dpop",
    "smaug": "dpop",
    "bce": "bco_pair",
    "biased_nca": "bco_pair",
    "conservative_dpo": "cdpo",
    "kto_zero": "apo_zero_unpaired",
}


@pytest.mark.parametrize(("other", "name"), [*TRL.items(), *OTHERS.items()])
def test_a_name_of_another_library_is_understood(other: str, name: str) -> None:
    assert registry.get(other).spec.name == name
