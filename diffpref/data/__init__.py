"""Preference data: stores of records, images, and the views that training reads."""

from __future__ import annotations

from diffpref.data.asked import Prompt, open_prompts, prompt_view
from diffpref.data.captions import caption_of, paraphrase_kind, with_captions
from diffpref.data.columns import clean_prompt
from diffpref.data.combined import Combined
from diffpref.data.images import Framed, decode_image, encode_png, image_tensor, to_rgb, to_uint8
from diffpref.data.items import ATTACHED, COMPANIONS, VIEWS, Item, attached, given_columns, view_of
from diffpref.data.labelled import LabelledPairs, labelled_pairs, score_rows
from diffpref.data.lists import Ranking, list_view
from diffpref.data.pairs import Pair, Pairs, pair_view
from diffpref.data.points import Point, point_view, scored_points
from diffpref.data.prompts import load_prompts, prompts_with_fields
from diffpref.data.quarantine import Quarantined, Usable, usable_records
from diffpref.data.sampler import BalancedSampler, KeyedSampler
from diffpref.data.scores import score_of
from diffpref.data.sources import index_source, open_records
from diffpref.data.store import Store, StoreWriter, read_store, write_store
from diffpref.data.views import CENTRE, ClipCut, Framing, View
from diffpref.data.winners import winner_view

__all__ = [
    "ATTACHED",
    "CENTRE",
    "COMPANIONS",
    "VIEWS",
    "BalancedSampler",
    "ClipCut",
    "Combined",
    "Framed",
    "Framing",
    "Item",
    "KeyedSampler",
    "LabelledPairs",
    "Pair",
    "Pairs",
    "Point",
    "Prompt",
    "Quarantined",
    "Ranking",
    "Store",
    "StoreWriter",
    "Usable",
    "View",
    "attached",
    "caption_of",
    "clean_prompt",
    "decode_image",
    "encode_png",
    "given_columns",
    "image_tensor",
    "index_source",
    "labelled_pairs",
    "list_view",
    "load_prompts",
    "open_prompts",
    "open_records",
    "pair_view",
    "paraphrase_kind",
    "point_view",
    "prompt_view",
    "prompts_with_fields",
    "read_store",
    "score_of",
    "score_rows",
    "scored_points",
    "to_rgb",
    "to_uint8",
    "usable_records",
    "view_of",
    "winner_view",
    "with_captions",
    "write_store",
]
