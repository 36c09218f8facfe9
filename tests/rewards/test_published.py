"""Where weights are: one place reads a path, says what is missing, and prefers tensors to the pickle of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffpref.core.assets import ASSETS
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards._published import Published

ONE = Published("one", "someone/one", ("weights.pt",), "MIT")
TWO = Published("two", "someone/two", ("config.json", "*.safetensors|*.bin"), "MIT", bundled="shapes-clip")
APART = Published("apart", "https://example.org/apart", ("weights.pt",), "AGPL-3.0", on_hub=False)


@pytest.mark.parametrize("path", ["bundled:shapes-clip", str(ASSETS / "shapes" / "clip")])
def test_bundled_models_and_folders_are_found_by_both_ways(path):
    assert TWO.find(path) == Path(TWO.place(path)) == ASSETS / "shapes" / "clip"


def test_a_hub_id_is_a_place_and_nothing_is_asked_of_the_hub():
    assert TWO.place("someone/other") == "someone/other"


@pytest.mark.parametrize("path", ["nowhere", "./no/where", "/no/where", "~/no-where", "a/b/c"])
@pytest.mark.parametrize("published", [ONE, TWO, APART])
def test_what_is_no_place_is_told_with_what_was_wanted(published, path):
    for look in (published.place, published.find):
        with pytest.raises(ModelError, match=r"no such file or folder; reward '.*' reads .*licence: ") as caught:
            look(path)
        assert "\n" not in str(caught.value) and published.repository in str(caught.value)


def test_what_is_not_on_the_hub_is_never_fetched():
    with pytest.raises(ModelError, match=r"someone/apart: no such file or folder; .*https://example\.org/apart"):
        APART.find("someone/apart")


@pytest.mark.parametrize(
    ("published", "choices"),
    [
        (ONE, "the hub id 'someone/one' or a folder; it reads weights.pt of someone/one (licence: MIT)"),
        (
            TWO,
            "the hub id 'someone/two', a folder or 'bundled:shapes-clip'; it reads config.json, *.safetensors or *.bin",
        ),
        (APART, "needs a path: a folder; it reads weights.pt of https://example.org/apart (licence: AGPL-3.0)"),
    ],
)
def test_no_path_names_the_choices(published, choices):
    with pytest.raises(ConfigError) as caught:
        published.find(None)
    assert choices in str(caught.value)


def test_one_of_several_names_is_enough_and_each_file_must_be_there(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelError, match=r"no file \*\.safetensors or \*\.bin; reward 'two' reads config\.json"):
        TWO.find(str(tmp_path))
    (tmp_path / "model.bin").touch()
    assert TWO.file(TWO.find(str(tmp_path)), TWO.files[1]).name == "model.bin"
    (tmp_path / "model.safetensors").touch()
    assert TWO.file(tmp_path, TWO.files[1]).name == "model.safetensors"
    (tmp_path / "config.json").rename(tmp_path / "config.safetensors")  # no twin of what is no pickle
    with pytest.raises(ModelError, match=r"no file config\.json"):
        TWO.find(str(tmp_path))


def test_a_pickle_gives_way_to_its_tensors(tmp_path):
    (tmp_path / "weights.pt").touch()
    assert ONE.file(ONE.find(str(tmp_path)), "weights.pt").name == "weights.pt"
    assert ONE.find(str(tmp_path / "weights.pt")) == tmp_path / "weights.pt"
    (tmp_path / "weights.safetensors").touch()
    assert ONE.file(ONE.find(str(tmp_path)), "weights.pt").name == "weights.safetensors"
    (tmp_path / "weights.pt").unlink()
    assert ONE.find(str(tmp_path)) == tmp_path
