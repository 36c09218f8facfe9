"""Prompts are read as they stand, and what is no prompt is named with its line."""

from __future__ import annotations

import json

import pytest

from diffpref.core.errors import DataError
from diffpref.generation import load_prompts
from diffpref.shapes.grammar import captions
from diffpref.shapes.motion import moving_captions
from diffpref.words import instructions


def test_a_list_a_text_file_and_jsonl_give_the_same_prompts(tmp_path):
    prompts = ["a cat", "a d\u00f6g, \u2028 so to say"]
    (tmp_path / "p.txt").write_text("\ufeff" + "\n\n".join(prompts) + "\r\n", encoding="utf-8")
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": p, "k": 1}) for p in prompts))
    assert load_prompts(prompts) == load_prompts(tmp_path / "p.txt") == load_prompts(str(tmp_path / "p.jsonl"))
    assert load_prompts(tmp_path / "p.txt") == prompts


def test_ranges_of_the_shapes_world_do_not_overlap():
    whole = [str(caption) for caption in captions("unseen")]
    assert load_prompts("shapes:unseen") == whole
    assert load_prompts("shapes:unseen:3") == whole[:3] and load_prompts("shapes:unseen:3-7") == whole[3:7]
    held_out = [str(caption) for caption in captions("held_out")]
    assert sorted(load_prompts("shapes:held_out")) == sorted(held_out)
    assert load_prompts("shapes:held_out:20") == load_prompts("shapes:held_out")[:20] != held_out[:20]


def test_ranges_of_the_moving_shapes_do_not_overlap():
    whole = [str(caption) for caption in moving_captions("unseen")]
    assert load_prompts("shapes_moving:unseen") == whole and len(whole) == 44
    assert (
        load_prompts("shapes_moving:unseen:3") == whole[:3] and load_prompts("shapes_moving:unseen:3-7") == whole[3:7]
    )
    assert not set(whole) & set(load_prompts("shapes_moving:seen"))


def test_ranges_of_the_words_world_do_not_overlap():
    whole = [str(one) for one in instructions("unseen", 7)]
    assert load_prompts("words:unseen:3") == whole[:3] and load_prompts("words:unseen:3-7") == whole[3:]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.txt", "no such file"),
        ("shapes:unsen", "did you mean 'unseen'"),
        ("shapes:unseen:0", "captions 0-500"),
        ("shapes:unseen:501", "captions 0-500"),
        ("shapes:unseen:7-3", "captions 0-500"),
        ("shapes:unseen:many", "expected shapes:SPLIT"),
        ("shapes_moving:unsen", "did you mean 'unseen'"),
        ("shapes_moving:unseen:45", "captions 0-44"),
        ("shapes_moving", "no such file"),
        ("shapes_moving:unseen:many", "expected shapes_moving:SPLIT"),
        ("words:unsen:3", "did you mean 'unseen'"),
        ("words:unseen", "expected words:SPLIT:COUNT"),
        ("words:unseen:7-3", "holds no prompts"),
        ([], "holds no prompts"),
        (["a", " "], "prompts, 2: a prompt must be a text"),
        (["\ud800"], "valid Unicode"),
    ],
)
def test_a_source_that_gives_no_prompts_is_one_line(source, said):
    with pytest.raises(DataError) as error:
        load_prompts(source)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a"}\n{', "p.jsonl, 2: not JSON"),
        (b'{"caption": "a"}', "p.jsonl, 1: no 'prompt'; found: caption"),
        (b'["a"]', "found: list"),
        (b'{"prompt": 3}', "p.jsonl, 1: a prompt must be a text"),
        (b"\n\n", "holds no prompts"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, said):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_prompts(tmp_path / "p.jsonl")


def test_a_folder_is_no_prompt_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        load_prompts(tmp_path)
