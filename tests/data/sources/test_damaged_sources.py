"""Tests that damaged files of every source are read or rejected with a message that names the file."""

import io
import warnings

import numpy as np
import pytest
from helpers import encode, needed
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

ROWS = 4
AFFECTNET = "subDirectory_filePath,face_x,face_y,face_width,face_height,expression"


def contents():
    """Returns {file name: bytes}, with one file per reader."""
    image = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)
    pixels, encoded = " ".join(map(str, image.ravel())), encode(image)
    texts = {
        "fer2013.csv": ["emotion,pixels,Usage", *(f"{i},{pixels},Training" for i in range(ROWS))],
        "list_patition_label.txt": [f"a.png {i + 1}" for i in range(ROWS)],
        "label.lst": [f"a.png {i} 0 0 8 8 97.5 {i}" for i in range(ROWS)],
        "training.csv": [AFFECTNET, *(f"a.png,0,0,8,8,{i}" for i in range(ROWS))],
        "any.csv": ["path,label,split", *(f"a.png,{name},train" for name in ("sad", "joy", "fear", "anger"))],
    }
    found = {name: "\n".join(lines).encode() for name, lines in texts.items()}
    pyarrow, buffer = needed("pyarrow", "huggingface"), io.BytesIO()
    table = pyarrow.table({"image": [{"bytes": encoded, "path": "a"}] * ROWS, "label": ["sad"] * ROWS})
    needed("pyarrow.parquet", "huggingface").write_table(table, buffer, compression="none")
    return found | {"train.parquet": buffer.getvalue(), "a.png": encoded}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with all files; each example overwrites one."""
    root = tmp_path_factory.mktemp("damaged")
    for name, content in contents().items():
        (root / name).write_bytes(content)
    return root


CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    "name",
    ["fer2013.csv", "list_patition_label.txt", "label.lst", "training.csv", "any.csv", "train.parquet"],
)
def test_a_damaged_file_is_read_or_refused(folder, name):
    path, whole = folder / name, (folder / name).read_bytes()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(CHANGES)
    def check(changes):
        content = whole
        for where, cut, new in changes:
            at = round(where * len(content))
            content = content[:at] + new + content[at + cut :]
        path.write_bytes(content)
        bad = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for record in open_source(path).records(bad.append):
                    assert record.image.dtype == np.uint8 and 0 <= record.label < 7
        except SourceError as error:
            assert str(folder) in str(error)

    check()
