"""Preference data: stores of records, images, and the views that training reads."""

from __future__ import annotations

from diffpref.data.columns import clean_prompt
from diffpref.data.images import Framed, decode_image, encode_png, image_tensor, to_rgb, to_uint8
from diffpref.data.pairs import Pair, Pairs, pair_view, score_of
from diffpref.data.quarantine import Quarantined, Usable, usable_records
from diffpref.data.sampler import KeyedSampler
from diffpref.data.sources import index_source, open_records
from diffpref.data.store import Store, StoreWriter, read_store, write_store
from diffpref.data.views import CENTRE, Framing, View

__all__ = [
    "CENTRE",
    "Framed",
    "Framing",
    "KeyedSampler",
    "Pair",
    "Pairs",
    "Quarantined",
    "Store",
    "StoreWriter",
    "Usable",
    "View",
    "clean_prompt",
    "decode_image",
    "encode_png",
    "image_tensor",
    "index_source",
    "open_records",
    "pair_view",
    "read_store",
    "score_of",
    "to_rgb",
    "to_uint8",
    "usable_records",
    "write_store",
]
