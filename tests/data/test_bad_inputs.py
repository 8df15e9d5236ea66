"""Everything that users feed by mistake: stopped with file, row and reason, or skipped and listed."""

import builtins
import io
import os
import shlex
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import script
from PIL import Image

from fer_jax.data.dataset import build, read
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import BadRecordError, SourceError

# --- rows of a CSV ---

GOOD = " ".join(["7"] * 2304)
BAD_ROWS = [
    (f"9,{GOOD},Training", "emotion is '9', expected a number from 0 to 6 (0 angry, 1 disgust"),
    (f"-1,{GOOD},Training", "emotion is '-1', expected a number from 0 to 6"),
    (f"happy,{GOOD},Training", "emotion is 'happy', expected a number from 0 to 6"),
    (f",{GOOD},Training", "emotion is '', expected a number from 0 to 6"),
    (f"3,{GOOD[:-2]},Training", "2303 pixels, expected 2304 (48 x 48)"),
    (f"3,{GOOD} 7,Training", "2305 pixels, expected 2304 (48 x 48)"),
    ("3,,Training", "0 pixels, expected 2304 (48 x 48)"),
    (f"3,{GOOD[:-1]}x,Training", "pixels hold 'x', expected whole numbers from 0 to 255"),
    (f"3,{GOOD[:-1]}7.5,Training", "pixels hold '7.5', expected whole numbers from 0 to 255"),
    (f"3,{GOOD[:-1]}-7,Training", "pixels hold '-7', expected whole numbers from 0 to 255"),
    (f"3,{GOOD[:-1]}٣,Training", "pixels hold '٣', expected whole numbers from 0 to 255"),
    (f"3,{GOOD[:-1]}256,Training", "a pixel is 256, expected 0 to 255"),
    (f"3,{GOOD[:-1]}{'9' * 30},Training", "expected 0 to 255"),
    (f"3,{GOOD},Holiday", "Usage is 'Holiday', expected Training, PublicTest or PrivateTest"),
    (f"3,{GOOD}", "2 fields, expected 3"),
]


@pytest.fixture
def csv_with(tmp_path):
    """csv_with(row) -> a CSV whose row 3 is the given one, between good ones."""

    def write(row: str) -> Path:
        path = tmp_path / "fer2013.csv"
        good = [f"{i},{' '.join([str(i)] * 2304)},Training" for i in range(4)]
        lines = ["emotion,pixels,Usage", good[0], row, *good[1:], ""]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=[reason for _, reason in BAD_ROWS])
def test_bad_row_stops_with_its_number_and_reason(csv_with, row, reason):
    with pytest.raises(BadRecordError) as caught:
        list(open_source(csv_with(row)).records())
    assert caught.value.where == "fer2013.csv row 3"
    assert reason in str(caught.value)


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS[::5], ids=["label", "count", "unicode"])
def test_bad_row_can_be_skipped(csv_with, row, reason):
    bad = []
    records = list(open_source(csv_with(row)).records(bad.append))
    assert [record.label for record in records] == [0, 1, 2, 3]
    assert [error.where for error in bad] == ["fer2013.csv row 3"]


def test_skipped_rows_are_listed_in_the_manifest(csv_with, tmp_path):
    manifest = build.build(
        csv_with(BAD_ROWS[0][0]),
        tmp_path / "data",
        skip_bad=True,
        progress=False,
        validation_fraction=0,
        test_fraction=0,
    )
    (bad,) = manifest["skipped"]
    assert bad["where"] == "fer2013.csv row 3"
    assert bad["reason"].startswith("emotion is '9'")
    assert manifest["splits"]["train"]["count"] == 4


def test_nothing_but_bad_rows(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n9,1 2,Training\n")
    with pytest.raises(SourceError, match=r"fer2013.csv: no image in it could be used \(1 were bad\)"):
        build.build(path, tmp_path / "data", skip_bad=True, progress=False)


# --- sources as a whole ---


def test_missing_path(tmp_path):
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path / "no" / "such.csv")
    assert f"{tmp_path}/no/such.csv does not exist ({tmp_path} does); give" in str(caught.value)


def test_empty_folder(tmp_path):
    with pytest.raises(SourceError, match="has no subfolders and is empty; expected images in"):
        open_source(tmp_path)


def test_folder_with_class_folders_but_no_images(tmp_path):
    (tmp_path / "happy").mkdir()
    with pytest.raises(SourceError, match=r"no images below .* \(looked in 1 class folders"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("label,pixels,Usage", "row 1: the header has no column emotion, it reads 'label,pixels"),
        ("", "the header has no column emotion and no column pixels, it reads ''"),
    ],
)
def test_wrong_header(tmp_path, header, message):
    path = tmp_path / "fer2013.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert message in str(caught.value)


def test_a_quoted_header(tmp_path, faces):
    path = tmp_path / "fer2013.csv"
    pixels = " ".join(map(str, np.ravel(faces(1)[0])))
    path.write_text(f'"emotion", "pixels","Usage"\n"3","{pixels}","Training"\n')
    (record,) = open_source(path).records()
    assert record.label == 3 and record.split == "train"


def test_file_that_is_no_csv(tmp_path):
    (tmp_path / "fer2013.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"fer2013.zip is not a .csv file"):
        open_source(tmp_path / "fer2013.zip")


# --- images ---


def png_bomb(width: int, height: int) -> bytes:
    """A few dozen bytes of PNG that declare a huge image."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[: buffer.tell() // 2]


def jpeg_with_damaged_exif() -> bytes:
    """Its orientation can be read, but not the rest of what stands beside it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "abc"
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 7).save(buffer, "JPEG", exif=exif.tobytes())
    content = bytearray(buffer.getvalue())
    content[content.index(b"Exif") + 17] = 0
    return bytes(content)


BAD_IMAGES = {
    "exif.jpg": (jpeg_with_damaged_exif(), "cannot be decoded: required argument is not an integer"),
    "truncated.jpg": (truncated_jpeg(), "cannot be decoded: image file is truncated"),
    "bomb.png": (png_bomb(40_000, 40_000), "pixels, more than the limit of 80,000,000; it was not"),
    "big.png": (png_bomb(10_000, 10_000), "pixels, more than the limit of 80,000,000; it was not"),
    "large.png": (png_bomb(9_000, 9_000), "declares 9000 x 9000 pixels, more than the limit of"),
    "text.jpg": (b"this is no image", "it is not an image that can be read"),
    "empty.png": (b"", "it is not an image that can be read"),
    "page.gif": (b"GIF89a\x01\x00", "cannot be decoded"),
}


@pytest.fixture
def folder_with(write_images, faces):
    """folder_with(name, content) -> train/{happy,sad} with one good image each and a bad one in sad."""

    def write(name: str, content: bytes) -> Path:
        a, b = faces(2)
        root = write_images({"train/happy/a.png": a, "train/sad/z.png": b})
        (root / "train" / "sad" / name).write_bytes(content)
        return root

    return write


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_stops_with_its_path_and_reason(folder_with, name):
    content, reason = BAD_IMAGES[name]
    root = folder_with(name, content)
    with pytest.raises(BadRecordError) as caught:
        list(open_source(root).records())
    assert caught.value.where == str(root / "train" / "sad" / name)
    assert reason in caught.value.reason


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_can_be_skipped(folder_with, name):
    bad = []
    records = list(open_source(folder_with(name, BAD_IMAGES[name][0])).records(bad.append))
    assert [record.label for record in records] == [3, 4]
    assert len(bad) == 1


def test_a_name_that_is_not_utf8(write_images, faces):
    a, b = faces(2)
    root = write_images({"train/happy/a.png": a, "train/sad/b.png": b})
    shutil.copy(root / "train/sad/b.png", os.fsencode(root) + b"/train/sad/sch\xf6n.png")
    bad = []
    assert len(list(open_source(root).records(bad.append))) == 2
    assert bad[0].where == str(root / "train/sad") + r"/sch\xf6n.png"
    assert bad[0].reason == "the file's name is not UTF-8; rename it"


@pytest.fixture
def deny(monkeypatch):
    """deny(name): opening a file of that name fails as for a user without permission (tests run as root)."""

    def refuse(name):
        real = builtins.open

        def guarded(path, *args, **kwargs):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", guarded)

    return refuse


def test_image_without_read_permission(folder_with, deny):
    root = folder_with("locked.png", b"")
    deny("locked.png")
    with pytest.raises(BadRecordError, match=r"locked\.png: no permission to read it; check"):
        list(open_source(root).records())


@pytest.mark.parametrize("name", ["", "train", "train/sad", "train/sad/deep"])
def test_folder_that_cannot_be_listed(write_images, faces, monkeypatch, name):
    a, b = faces(2)
    root = write_images({"train/happy/a.png": a, "train/sad/deep/b.png": b})
    real = os.scandir

    def guarded(path):  # tests may run as root, whom no permission stops
        if Path(path) == root / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SourceError) as caught:
        open_source(root)
    assert str(caught.value) == f"{root / name} cannot be listed: Permission denied; check its permissions"


def test_csv_without_read_permission(csv_with, deny):
    path = csv_with(f"3,{GOOD},Training")
    deny("fer2013.csv")
    with pytest.raises(SourceError, match=r"fer2013\.csv cannot be read: Permission denied"):
        open_source(path)


def test_csv_that_breaks_off_while_reading(csv_with, deny):
    source = open_source(csv_with(f"3,{GOOD},Training"))
    deny("fer2013.csv")
    with pytest.raises(SourceError, match=r"fer2013\.csv cannot be read: Permission denied"):
        list(source.records())


# --- the scripts: a message, exit status 2, no traceback ---


@pytest.mark.parametrize("name", ["prepare", "audit"])
def test_scripts_say_what_is_wrong(tmp_path, capsys, name):
    arguments = ["--source", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]
    assert script(name).main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/nothing does not exist")
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_prepare_data_stops_at_a_bad_row_and_tells_of_skip_bad(csv_with, tmp_path, capsys):
    arguments = ["--source", str(csv_with(BAD_ROWS[0][0])), "--out", str(tmp_path / "data")]
    prepare = script("prepare")
    assert prepare.main(arguments) == 2
    error = capsys.readouterr().err
    assert "error: fer2013.csv row 3: emotion is '9'" in error
    assert "--skip_bad" in error
    assert not (tmp_path / "data").exists()
    options = ["--skip_bad", "--validation_fraction", "0", "--test_fraction", "0"]
    assert prepare.main([*arguments, *options]) == 0
    printed = capsys.readouterr().out
    assert "left out 1 bad rows or images" in printed
    assert "fer2013.csv row 3: emotion is '9'" in printed


def test_prepare_data_summary(faces, write_csv, tmp_path, capsys):
    path = write_csv(faces(4), [3, 3, 0, 6], ["Training"] * 2 + ["PublicTest", "PrivateTest"])
    out = tmp_path / "data"
    assert script("prepare").main(["--source", str(path), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines]
    assert ["train", "validation", "test"] in table
    assert ["happy", "2", "0", "0"] in table
    assert ["all", "2", "1", "1"] in table
    manifest = read.read_manifest(out)
    assert f"content hash  {manifest['content_hash']}" in lines
    assert any("fer-jax audit --source" in line for line in lines)
    assert any("fer_jax.main --config" in line and str(out) in line for line in lines)


def test_prepare_data_prints_what_training_on_other_data_needs(faces, write_images, tmp_path, capsys):
    dark, small, other = faces(1, shape=(20, 16, 3))[0] // 4, faces(1)[0, :9, :9], faces(1, 1)[0]
    files = {"train/sad/a.png": dark, "train/sad/b.png": small, "val/sad/c.png": other}
    root, out = write_images(files, "my images"), tmp_path / "my data"
    assert script("prepare").main(["--source", str(root), "--out", f"{out}/"]) == 0
    *_, audit, train = capsys.readouterr().out.splitlines()
    assert shlex.split(audit)[2:] == ["--source", str(root), "--out", f"{out}_audit"]
    manifest = read.read_manifest(out)
    assert shlex.split(train) == [
        *("python", "-m", "fer_jax.main", "--config", "configs/cnn.py", f"--config.data.dir={out}/"),
        "--config.model.channels=3",
        f"--config.model.mean={round(manifest['pixel_mean'], 4)}",
        f"--config.model.std={round(manifest['pixel_std'], 4)}",
        "--config.data.image_size=48",
    ]


def test_fer2013_needs_no_overrides():
    facts = {"channels": 1, "pixel_mean": 0.507742, "pixel_std": 0.255008, "image_shape": [48, 48, 1]}
    assert script("prepare").overrides(facts) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "seed -1 must be 0 or more"),
        ("--validation_fraction", "-0.1", "validation_fraction -0.1 and test_fraction 0.1 must be"),
        ("--validation_fraction", "nan", "validation_fraction nan and test_fraction 0.1 must be"),
        ("--test_fraction", "1", "test_fraction 1.0 must be 0 or more and leave something for train"),
    ],
)
def test_prepare_data_checks_its_numbers_first(tmp_path, capsys, option, value, message):
    arguments = ["--source", str(tmp_path / "nothing"), "--out", str(tmp_path / "data"), option, value]
    assert script("prepare").main(arguments) == 2
    assert message in capsys.readouterr().err


def test_prepare_data_refuses_to_touch_other_files(csv_with, tmp_path, capsys):
    arguments = ["--source", str(csv_with(f"3,{GOOD},Training")), "--out", str(tmp_path)]
    assert script("prepare").main(arguments) == 2
    assert "holds other things (fer2013.csv), which are left alone" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "1.5", "near"])
def test_audit_data_checks_its_threshold(capsys, value):
    with pytest.raises(SystemExit) as caught:
        script("audit").main(["--source", "x", "--out", "y", "--near_threshold", value])
    assert caught.value.code == 2
    assert "--near_threshold" in capsys.readouterr().err


def test_audit_data_cannot_write(faces, write_csv, tmp_path, capsys):
    path = write_csv(faces(1), [3], ["Training"])
    assert script("audit").main(["--source", str(path), "--out", f"{path}/out"]) == 2
    assert f"error: cannot write {path}/out: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prepare", "audit"])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        script(name).main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"fer-jax {name} --source fer2013.csv --out" in printed


def test_help_lists_the_sources_line_by_line(capsys):
    with pytest.raises(SystemExit):
        script("prepare").main(["--help"])
    printed = capsys.readouterr().out
    for source in ("fer2013.csv", "SPLIT/CLASS/... images", "CLASS/... images", "synthetic"):
        assert f"\n  {source} " in printed
