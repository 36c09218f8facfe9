"""Where the bundled models lie."""

from __future__ import annotations

import pytest

from diffpref.core import assets
from diffpref.core.errors import ModelError


def test_a_bundled_name_is_its_folder_and_other_paths_stay(tmp_path, monkeypatch):
    (tmp_path / "shapes" / "sdxl").mkdir(parents=True)
    (tmp_path / "shapes" / "pickscore").mkdir()
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    assert assets.bundled() == ["shapes-pickscore", "shapes-sdxl"]
    assert assets.resolve("bundled:shapes-sdxl") == str(tmp_path / "shapes" / "sdxl")
    assert assets.resolve("stabilityai/sdxl") == "stabilityai/sdxl"
    with pytest.raises(ModelError, match=r"'shapes-sdlx'; did you mean 'shapes-sdxl'\? bundled: shapes-pickscore"):
        assets.resolve("bundled:shapes-sdlx")


def test_nothing_bundled_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "ASSETS", tmp_path / "absent")
    with pytest.raises(ModelError, match="bundled: nothing"):
        assets.resolve("bundled:shapes-sdxl")
