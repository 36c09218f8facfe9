"""Pick-a-Pic's test captions (Kirstain et al., NeurIPS 2023, arXiv 2305.01569): 500, the split ``test_unique``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_json_lines, read_lines

__all__ = ["read_pick_a_pic"]


@published(
    "pick_a_pic",
    files=["test_unique*.parquet"],
    origin="the hub's data set yuvalkirstain/pickapic_v2_no_images, or of pickapic_v1_no_images",
    licence="none is stated on the cards",
    expected=500,
    folder="data",
)
def read_pick_a_pic(files: Sequence[Path]) -> Content:
    """Read the captions of Parquet files, of JSON lines with ``caption`` or of plain lines.

    The 2,048 captions of Flow-GRPO's ``pickscore/test.txt`` come from version 1's *training* split.

    Raises:
        DataError: no captions are there.
    """
    return Content([caption for file in files for caption in _captions(file)])


def _captions(file: Path) -> list[str]:
    if file.suffix == ".jsonl":
        return [row["caption"] for row in read_json_lines(file, "caption")]
    if file.suffix != ".parquet":
        return read_lines(file)
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        table = parquet.ParquetFile(file)
        if "caption" not in table.schema_arrow.names:
            raise DataError(f"{file}: no column caption; found {', '.join(table.schema_arrow.names)}")
        captions: list[str] = table.read(columns=["caption"])["caption"].to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from error
    return captions
