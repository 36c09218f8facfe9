"""Every notebook is short, carries no outputs, and runs from its first cell to its last."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SECONDS = 240  # of the processor: a notebook promises two minutes on two idle cores, and these may be shared
PATIENCE = 900  # seconds by the clock, of a cell

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert "01_first_alignment.ipynb" in [path.name for path in NOTEBOOKS]


@every_notebook
def test_a_notebook_is_valid_and_short(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert 0 < len(code_cells(notebook)) <= 12
    assert notebook.metadata.kernelspec.name == "python3"


@every_notebook
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=nbformat.NO_CONVERT)):
        assert cell.outputs == [] and cell.execution_count is None, cell.source


@every_notebook
def test_each_step_of_a_notebook_is_explained(path: Path) -> None:
    cells = nbformat.read(path, as_version=nbformat.NO_CONVERT).cells
    for before, cell in zip([None, *cells], cells, strict=False):
        if cell.cell_type == "code":
            assert before is not None and before.cell_type == "markdown", cell.source


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_in_time(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kernel_spec(tmp_path / "share" / "kernels" / "python3")  # first on the path, so that no other python3 is met
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kernels = KernelSpecManager()
    assert kernels.get_kernel_spec("python3").argv[0] == sys.executable

    notebook = nbformat.read(path, as_version=4)
    folder = tmp_path / "work"
    folder.mkdir()
    client = NotebookClient(
        notebook, timeout=PATIENCE, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    before = _seconds_of_children()
    client.execute()
    assert 1 < _seconds_of_children() - before < SECONDS

    warnings = [
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr" and "diffpref" in output.text
    ]
    assert warnings == []
    assert list(folder.iterdir()) == []  # what a notebook makes goes to a folder that it names
