"""Published numbers: each with a setting that is explained, shown beside ours for bases of full size only."""

from __future__ import annotations

import pytest
import yaml

from diffpref import rewards
from diffpref.core.assets import ASSETS
from diffpref.evaluation import Column, Standings, make_table
from diffpref.evaluation.published import COMPARABLE, architecture_of, published_rows
from diffpref.evaluation.sheets import make_sheets

SDXL = {"addition_embed_type": "text_time", "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280]}


def test_the_architecture_is_told_by_the_config() -> None:
    assert architecture_of(SDXL) == "sdxl"
    assert architecture_of({"cross_attention_dim": 768, "block_out_channels": (320, 640, 1280, 1280)}) == "sd15"
    assert architecture_of({**SDXL, "block_out_channels": [32, 64]}) is None
    assert architecture_of({"cross_attention_dim": 1024, "block_out_channels": [320, 640, 1280, 1280]}) is None


def test_numbers_are_those_of_the_papers_in_their_settings() -> None:
    sdxl = {(row.model, row.setting.letter): row.values for row in published_rows("sdxl")}
    assert sdxl["SmPO", "S"] == {"pickscore": 23.62, "hps_v21": 32.53, "image_reward": 1.331, "aesthetic_v2": 6.264}
    assert sdxl["SDXL base", "S"]["pickscore"] - sdxl["SDXL base", "P"]["pickscore"] > 0.75
    assert sdxl["RankDPO", "R"]["dpg_dsg"] == 79.26
    sd15 = {(row.model, row.setting.letter): row for row in published_rows("sd15")}
    assert sd15["SePPO", "V"].values["hps_v2"] == 27.20 and sd15["SePPO", "V"].setting.confidence == "notes"
    assert published_rows("other") == ()


def test_every_setting_is_explained_and_every_measure_is_known() -> None:
    found = yaml.safe_load((ASSETS / "published_numbers.yaml").read_text(encoding="utf-8"))
    used = {row["setting"] for rows in found["architectures"].values() for row in rows}
    assert used == set(found["settings"])
    assert {told["confidence"] for told in found["settings"].values()} == {"source", "notes", "memory"}
    titles = yaml.safe_load((ASSETS / "bibliography.yaml").read_text(encoding="utf-8"))
    ids = [told["of"].partition("arXiv:")[2][:10] for told in found["settings"].values() if "arXiv:" in told["of"]]
    assert len(ids) == 5 and [one for one in ids if one not in titles] == []
    known = {*rewards.names(), "geneval", "image_reward", "aesthetic_v2", "dpg_dsg", "dpg_vqascore", "dpg_q_align"}
    measures = {key for name in ("sdxl", "sd15") for row in published_rows(name) for key in row.values}
    assert measures <= known


def _sheets(architecture: str | None) -> dict[str, object]:
    columns = {"base": Column({"pickscore": (20.0, 22.0)}), "ours": Column({"pickscore": (22.0, 23.0)})}
    setting = {"base": {"architecture": architecture}, "prompts": {"name": "partiprompts"}}
    found = Standings("ab", (0, 1), columns, {"pickscore": "v1"}, num_draws=50, setting=setting)
    return {sheet.title: sheet for sheet in make_sheets(found, make_table(found))}


def test_a_setting_told_in_words_is_no_hindrance() -> None:
    column = Column({"pickscore": (1.0,)})
    setting = {"base": "bundled:shapes-sdxl", "prompts": "shapes:unseen"}
    found = Standings("a", (0,), {"base": column, "ours": column}, {"pickscore": ""}, num_draws=5, setting=setting)
    assert [sheet.title for sheet in make_sheets(found, make_table(found))] == ["All contenders"]


def test_they_stand_beside_ours_for_such_a_base_and_for_no_other() -> None:
    assert "Published numbers" not in _sheets(None)
    sheet = _sheets("sdxl")["Published numbers"]
    assert sheet.note.startswith(COMPARABLE) and "quoted by third parties" in sheet.note
    rows = {row[:2]: dict(zip(sheet.heads, row, strict=True)) for row in sheet.rows}
    assert rows["SmPO", "S"]["pickscore"] == "23.62"
    ours = rows["ours: ours", "ours: partiprompts, means"]
    assert (ours["pickscore"], ours["hps_v21"]) == ("22.50", "")


@pytest.mark.parametrize(
    ("measure", "version", "told"),
    [
        ("hps_v21", "v2.1", "25.00"),
        ("hps_v21", "v2.1+x100", "0.2500"),
        ("pickscore", "v1", "0.2500"),
        ("pickscore", "v1+cosine", ""),
        ("geneval", "d+strict+0.3", "0.5000"),  # two tasks: 0 of three, and 1 of one
        ("geneval", "d+soft+0.3", ""),
    ],
)
def test_ours_is_in_the_unit_of_the_papers_or_left_out(measure: str, version: str, told: str) -> None:
    tasks = (("counting",),) * 3 + (("colors",),)
    columns = {name: Column({measure: (0.0, 0.0, 0.0, 1.0)}) for name in ("base", "ours")}
    setting = {"base": {"architecture": "sdxl"}}
    found = Standings("abcd", (0, 1, 2, 3), columns, {measure: version}, {"tag": tasks}, num_draws=50, setting=setting)
    sheet = next(one for one in make_sheets(found, make_table(found)) if one.title == "Published numbers")
    assert dict(zip(sheet.heads, sheet.rows[-1], strict=True))[measure] == told
