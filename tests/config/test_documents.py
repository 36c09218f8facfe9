"""YAML is read strictly, and what is written reads back equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpref.cli import main
from diffpref.config import dump_yaml, load_yaml, parse_yaml
from diffpref.core.errors import ConfigError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)

REFUSED = {
    "duplicate key": ("seed: 1\noutput: x\nseed: 2\n", r"line 3: key 'seed' is given twice, first on line 1"),
    "nested duplicate": ("data:\n  a: 1\n  b: 2\n  a: 3\n", r"line 4: key 'a' is given twice, first on line 2"),
    "duplicate in flow": ("method: {dpo: {beta: 1, beta: 2}}\n", r"line 1: key 'beta' is given twice"),
    "same key quoted": ("a: 1\n'a': 2\n", r"key 'a' is given twice"),
    "python object": (
        "a: !!python/object/apply:os.system ['touch MARKER']\n",
        r"line 1: tag '.*os.system' is not supported",
    ),
    "python name": ("a: !!python/name:os.system\n", r"tag .* is not supported"),
    "own tag": ("a: 1\nb: !env HOME\n", r"line 2: tag '!env' is not supported"),
    "alias": ("a: &x [1]\nb: *x\n", r"line 2: alias '\*x' is not supported"),
    "number as key": ("1: a\n", r"line 1: keys must be text, got '1'; put quotes around it"),
    "boolean as key": ("no: a\n", r"keys must be text, got 'no'"),
    "merge key": ("<<: {a: 1}\n", r"keys must be text"),
    "two documents": ("a: 1\n---\nb: 2\n", r"a second document starts"),
    "too deep": ("a: " + "[" * 40 + "]" * 40, r"nested deeper than 32 levels"),
    "very deep": ("[" * 100_000, r"nested deeper than 32 levels"),
    "a list": ("- a\n- b\n", r"must hold keys and values, got a list"),
    "text": ("hello\n", r"must hold keys and values, got a str"),
    "open bracket": ("a: [1, 2\nb: 3\n", r"line \d: not readable as YAML"),
    "tab": ("a:\n\tb: 1\n", r"line 2: not readable as YAML"),
    "control character": ("a: \x01\n", r"not readable as YAML"),
    "impossible date": ("a: 2024-13-45\n", r"not readable as YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_row_27_a_file_that_cannot_be_meant_is_refused_with_its_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "recipe.yaml"
    path.write_text(content.replace("MARKER", str(tmp_path / "marker")))
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert main(["validate", str(path)]) == 2
    assert capsys.readouterr().err == f"diffpref: {caught.value}\n"
    assert not (tmp_path / "marker").exists()


def test_row_27_unreadable_files_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 6\)"):
        load_yaml(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_text("a: " + "x" * (2 << 20))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_yaml(tmp_path / "big.yaml")


def test_an_empty_file_is_an_empty_mapping_and_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# nothing yet\n")
    assert load_yaml(path) == {}
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(path) == {"a": 1}


@given(PLAIN)
def test_what_is_written_reads_back_equal(value: object) -> None:
    assert parse_yaml(dump_yaml(value)) == value


def test_a_value_used_twice_is_written_twice() -> None:
    shared = [1, 2]
    assert parse_yaml(dump_yaml({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}


def test_only_plain_values_are_written() -> None:
    with pytest.raises(ConfigError, match="cannot be written as YAML"):
        dump_yaml({"a": object()})
