"""Prompt sets by name: small files in the published forms, and what is said where they are missing or wrong."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.data import load_prompts
from diffpref.evaluation.prompt_sets import PromptSet, load_prompt_set, registry
from diffpref.evaluation.prompt_sets._shapes import TASKS, clauses
from diffpref.evaluation.prompt_sets.dpg_bench import read_dpg_bench
from diffpref.shapes.grammar import Caption, captions

PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    '"G I G G L E" painted on a wall\tArts\tWriting & Symbols\t\n'
    "a boat, a fox\tVehicles\tBasic\tno note\n"
    " a cat \tAnimals\tBasic\t\n"
)
GENEVAL = [
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "prompt": "two cats"},
    {"tag": "position", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"},
]
DPG = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n"
    'a1,"A ""red"" bus, parked.",k,1,0,entity,whole,entity - whole (bus),Is there a bus?\n'
    'a1,"A ""red"" bus, parked.",k,2,1,attribute,color,attribute - color (red),Is it red?\n'
    "b2,A dog.,k,1,0,entity,whole,entity - whole (dog),Is there a dog?\n"
    'b2,A dog.,k,3,"1, 2",relation,spatial,relation - spatial (near),Is it near?\n'
)
VBENCH = [
    {"prompt_en": "a stop sign", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a cat runs", "dimension": ["subject_consistency", "dynamic_degree"], "auxiliary_info": {}},
    {"prompt_en": "a stop sign", "dimension": ["object_class"]},
]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_partiprompts_keep_their_quotes_and_have_two_axes(tmp_path, caplog):
    file = write(tmp_path / "PartiPrompts.tsv", PARTI)
    with caplog.at_level(logging.WARNING):
        found = load_prompt_set(f"partiprompts={file}")
    assert found.prompts == ('"G I G G L E" painted on a wall', "a boat, a fox", "a cat")
    assert found.members("category") == {"Arts": (0,), "Vehicles": (1,), "Animals": (2,)}
    assert found.members("challenge") == {"Writing & Symbols": (0,), "Basic": (1, 2)}
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() and found.licence == "Apache-2.0"
    assert found.warnings == ("prompt set 'partiprompts': 3 prompts, published are 1632",)
    assert caplog.messages == [f"{found.warnings[0]} ({file})"]
    assert load_prompt_set(f"partiprompts={tmp_path}").prompts == found.prompts  # the folder holds the file


def test_a_whole_set_is_not_warned_of(tmp_path, caplog):
    rows = "".join(f"prompt {i}\tArts\tBasic\t\n" for i in range(1632))
    write(tmp_path / "PartiPrompts.tsv", PARTI.splitlines()[0] + "\n" + rows)
    found = load_prompt_set(f"partiprompts={tmp_path}")
    assert len(found) == 1632 and found.warnings == () and caplog.messages == []


def test_hpdv2_by_style_from_a_copy_of_the_repository(tmp_path):
    for number, style in enumerate(("anime", "concept-art", "paintings", "photo")):
        write(tmp_path / "benchmark" / f"{style}.json", json.dumps([f"{style} one", f"{style} two"][: 1 + number % 2]))
    found = load_prompt_set(f"hpdv2={tmp_path}")
    assert {style: len(rows) for style, rows in found.members("style").items()} == {
        "anime": 1,
        "concept-art": 2,
        "paintings": 1,
        "photo": 2,
    }
    one = load_prompt_set(f"hpdv2={tmp_path / 'benchmark' / 'photo.json'}")
    assert one.members("style") == {"photo": (0, 1)} and one.sha256 != found.sha256
    (tmp_path / "benchmark" / "photo.json").write_text('["another", "photo two"]')
    assert load_prompt_set(f"hpdv2={tmp_path}").sha256 != found.sha256


def test_pick_a_pic_from_parquet_json_lines_and_text(tmp_path):
    captions = ["a cat", "a dog", "a cat"]
    table = pa.table({"caption": captions, "label_0": [0.0, 1.0, 0.5]})
    parquet.write_table(table, tmp_path / "test_unique-00000-of-00001.parquet")
    write(tmp_path / "captions.jsonl", "".join(json.dumps({"caption": c}) + "\n" for c in captions))
    write(tmp_path / "captions.txt", "\n".join(captions))
    sets = [
        load_prompt_set(f"pick_a_pic={p}") for p in (tmp_path, tmp_path / "captions.jsonl", tmp_path / "captions.txt")
    ]
    assert [found.prompts for found in sets] == [tuple(captions)] * 3
    assert sets[0].unique().prompts == ("a cat", "a dog") and len(sets[0]) == 3
    parquet.write_table(pa.table({"text": captions}), tmp_path / "test_unique-00000-of-00001.parquet")
    with pytest.raises(DataError, match="no column caption; found text"):
        load_prompt_set(f"pick_a_pic={tmp_path}")


def test_drawbench_as_a_table_and_as_json(tmp_path):
    table = write(tmp_path / "db.csv", 'Prompts,Category\n"A red car, parked.",Colors\nTwo dogs.,Counting\n')
    found = load_prompt_set(f"drawbench={table}")
    assert found.prompts == ("A red car, parked.", "Two dogs.")
    assert found.members("category") == {"Colors": (0,), "Counting": (1,)}
    plain = load_prompt_set(f"drawbench={write(tmp_path / 'drawbench.json', json.dumps(list(found.prompts)))}")
    assert plain.prompts == found.prompts and plain.categories == {}


def test_geneval_gives_the_metadata_that_its_reward_wants(tmp_path):
    file = write(tmp_path / "prompts" / "evaluation_metadata.jsonl", "\n".join(map(json.dumps, GENEVAL)) + "\n")
    found = load_prompt_set(f"geneval={tmp_path}")
    assert found.metadata == tuple(GENEVAL) and found.prompts == ("two cats", "a cat")
    assert found.members("tag") == {"counting": (0,), "position": (1,)}
    file.write_text('{"tag": "counting", "prompt": "x"}')
    with pytest.raises(DataError, match=r"evaluation_metadata.jsonl, 1: expected an object with tag, include, prompt"):
        load_prompt_set(f"geneval={tmp_path}")


def test_t2i_compbench_by_file(tmp_path):
    for kind in ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex"):
        write(tmp_path / "examples" / "dataset" / f"{kind}_val.txt", f"{kind} one\n{kind} two\n\n")
    found = load_prompt_set(f"t2i_compbench={tmp_path}")
    assert found.members("category")["3d_spatial"] == (8, 9) and len(found) == 16
    (tmp_path / "examples" / "dataset" / "shape_val.txt").unlink()
    with pytest.raises(
        DataError, match=r"no file shape_val.txt; .*github.com/Karine-Huang/T2I-CompBench \(licence: MIT"
    ):
        load_prompt_set(f"t2i_compbench={tmp_path}")


def test_dpg_bench_with_its_questions(tmp_path):
    file = write(tmp_path / "dpg_bench.csv", DPG)
    found = load_prompt_set(f"dpg_bench={file}")
    assert found.prompts == ('A "red" bus, parked.', "A dog.")
    assert found.metadata is not None
    questions = found.metadata[0]["questions"]
    assert questions[2] == {"question": "Is it red?", "category": "attribute - color", "depends_on": (1,)}
    assert found.metadata[1]["questions"][3]["depends_on"] == (1, 2) and questions[1]["depends_on"] == ()


def test_dpg_bench_loses_its_first_question_as_the_official_code_does(tmp_path):
    file = write(tmp_path / "dpg_bench.csv", DPG)
    ours, official = (read_dpg_bench([file], legacy=legacy).metadata for legacy in (False, True))
    assert ours and official and list(ours[0]["questions"]) == [1, 2] and list(official[0]["questions"]) == [2]


def test_vbench_with_several_dimensions_a_prompt(tmp_path):
    file = write(tmp_path / "VBench_full_info.json", json.dumps(VBENCH))
    found = load_prompt_set(f"vbench={file}")
    assert found.prompts == ("a stop sign", "a cat runs", "a stop sign")
    assert found.members("dimension")["dynamic degree"] == (1,) and len(found.unique()) == 2
    file.write_text('[{"prompt_en": "x"}]')
    with pytest.raises(DataError, match="entry 1: expected an object with prompt_en and a list dimension"):
        load_prompt_set(f"vbench={file}")


@pytest.mark.parametrize("name", registry.names())
def test_a_missing_file_is_told_with_its_origin_and_licence(name, tmp_path):
    published = registry.get(name)
    for word in (name, f"{name}=", f"{name}={tmp_path}", f"{name}={tmp_path / 'nowhere'}"):
        with pytest.raises(DataError) as caught:
            load_prompt_set(word)
        assert "\n" not in str(caught.value)
        for part in (published.files[0], published.origin, published.licence, name):
            assert part in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(registry.names()) - {"pick_a_pic", "t2i_compbench"}))
def test_a_file_of_another_kind_is_refused_in_one_line(name, tmp_path):
    for text in ("a cat\n", "", '{"a": 1}\n', "[1, 2]"):
        with pytest.raises(DataError) as caught:
            load_prompt_set(f"{name}={write(tmp_path / 'file', text)}")
        assert "\n" not in str(caught.value) and "file" in str(caught.value)
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        load_prompt_set(f"{name}={tmp_path / 'file'}")


def test_a_row_that_is_too_short_is_told(tmp_path):
    with pytest.raises(DataError, match="row 2: expected 4 columns"):
        load_prompt_set(
            f"partiprompts={write(tmp_path / 'p.tsv', PARTI.replace('a boat, a fox	Vehicles', 'a boat'))}"
        )
    with pytest.raises(DataError, match="prompt 3: must be a text that is not empty"):
        load_prompt_set(f"partiprompts={write(tmp_path / 'p.tsv', PARTI.replace(' a cat ', ' '))}")


@pytest.mark.parametrize("word", ["shapes:unseen:7", "shapes:held_out:5-9", "shapes_moving:seen:4", "words:unseen:4"])
def test_bundled_worlds_as_generation_reads_them(word):
    found = load_prompt_set(word)
    assert list(found.prompts) == load_prompts(word) and found.name == word and found.metadata is None
    assert found.sha256 == hashlib.sha256("\n".join(found.prompts).encode()).hexdigest()
    axes = {"shapes": ["relation"], "shapes_moving": ["direction", "speed"], "words": []}[word.partition(":")[0]]
    assert list(found.categories) == axes
    for axis in axes:
        assert all(label in prompt for prompt, (label,) in zip(found.prompts, found.categories[axis], strict=True))


def test_own_files_as_generation_reads_them(tmp_path):
    text = write(tmp_path / "mine.txt", "a cat\n\na dog\n")
    found = load_prompt_set(str(text))
    assert found.prompts == ("a cat", "a dog") == tuple(load_prompts(text)) and found.name == "mine.txt"
    assert found.sha256 == hashlib.sha256(text.read_bytes()).hexdigest() and found.metadata is None


def test_other_fields_of_own_lines_are_metadata_and_categories(tmp_path):
    lines = [{"prompt": "two cats", "tag": "counting", "include": []}, {"prompt": "a cat", "tag": None}]
    found = load_prompt_set(str(write(tmp_path / "a=b.jsonl", "\n".join(map(json.dumps, lines)))))
    assert found.metadata is not None and found.metadata[0] == lines[0] and found.members("tag") == {"counting": (0,)}


@pytest.mark.parametrize(
    ("word", "error", "told"),
    [
        ("partiprompt", DataError, "did you mean 'partiprompts'"),
        ("partiprompt=x.tsv", ConfigError, "did you mean 'partiprompts'"),
        ("nothing.txt", DataError, "no such file or set; expected a text file"),
        ("shapes_geneval:0", DataError, "count of 1-"),
        ("shapes_geneval:many", DataError, "count of 1-"),
        ("shapes:unsen:3", DataError, "did you mean 'unseen'"),
    ],
)
def test_wrong_words_are_told(word, error, told):
    with pytest.raises(error, match=told):
        load_prompt_set(word)


def test_shapes_geneval_asks_each_task_of_other_unseen_captions():
    found = load_prompt_set("shapes_geneval")
    assert {tag: len(rows) for tag, rows in found.members("tag").items()} == dict.fromkeys(TASKS, 25)
    assert len(set(found.prompts)) == 100 and set(found.prompts) <= {str(caption) for caption in captions("unseen")}
    assert load_prompt_set("shapes_geneval:12").prompts == found.prompts[:12]


def test_clauses_of_a_caption():
    caption = Caption.parse("a red circle left of a blue square")
    circle, square = {"class": "circle", "count": 1}, {"class": "square", "count": 1}
    assert clauses(caption, "two_object")["include"] == [circle, square]
    assert clauses(caption, "color_attr")["include"] == [{**circle, "color": "red"}, {**square, "color": "blue"}]
    assert clauses(caption, "position")["include"] == [square, {**circle, "position": ["left of", 0]}]
    two = clauses(Caption.parse("a red circle above a blue circle"), "counting")
    assert two["include"] == [{"class": "circle", "count": 2}] and two["exclude"] == [{"class": "circle", "count": 3}]


def test_a_set_is_whole():
    with pytest.raises(ShapeError, match="2 prompts, category of 1"):
        PromptSet("x", "", ("a", "b"), {"category": (("c",),)})
    with pytest.raises(ShapeError, match="2 prompts, metadata of 0"):
        PromptSet("x", "", ("a", "b"), metadata=())
    with pytest.raises(ConfigError, match="no categories 'styl'; did you mean 'style'"):
        PromptSet("x", "", ("a",), {"style": (("c",),)}).members("styl")


def test_parts_of_a_set_keep_its_columns_together():
    whole = PromptSet("x", "sha", ("a", "b", "a"), {"k": (("1",), ("2", "1"), ())}, ({"n": 0}, {"n": 1}, {"n": 2}))
    assert whole.members("k") == {"1": (0, 1), "2": (1,)}
    part = whole.select([2, 1])
    assert (part.prompts, part.categories["k"], part.metadata) == (("a", "b"), ((), ("2", "1")), ({"n": 2}, {"n": 1}))
    assert [line.partition(": ")[2] for line in whole.unique().warnings] == [
        f"{len(whole) - 2} of {len(whole)} prompts come again and are left out, with their categories"
    ]
    assert whole.unique().metadata == ({"n": 0}, {"n": 1}) and part.unique() is part and part.sha256 == "sha"
