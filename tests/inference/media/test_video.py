"""Tests frames of videos and annotated copies, on clips with known frames."""

import contextlib
import io

import av
import numpy as np
import pytest
from clips import encode_clip, encode_tone, level, steps, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_jax.inference.media import VideoError, video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Returns a clip of two seconds at 10 frames per second."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mkv", steps(20), rate=10)


def read(*arguments):
    return [(frame.number, round(1000 * frame.seconds)) for frame in video.read_frames(*arguments)]


@pytest.mark.parametrize("ending", (".mp4", ".mkv", ".mov", ".avi"))
def test_every_frame_in_order_with_its_time(ending, tmp_path):
    path = write_clip(tmp_path / f"clip{ending}", steps(12), rate=20)
    frames = list(video.read_frames(path))
    assert [level(frame.image) for frame in frames] == list(range(12))
    assert [frame.number for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(12) / 20, atol=2e-3)
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.dtype == np.uint8
    assert abs(int(frames[0].image[0, 0, 0]) - 255) <= 3


@pytest.mark.parametrize("times", ([0, 40, 100, 900, 1000], [5000, 5100, 5200]))
def test_times_are_the_files_own_and_begin_at_the_first_frame(times, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", steps(len(times)), times)
    assert read(path) == [(number, time - times[0]) for number, time in enumerate(times)]


@pytest.mark.parametrize("ending", (".gif", ".webp"))
def test_an_animation_is_a_video(ending, tmp_path):
    path, (first, *rest) = tmp_path / f"a{ending}", [Image.fromarray(image) for image in steps(4)]
    first.save(path, save_all=True, append_images=rest, duration=[100, 200, 100, 100], lossless=True)
    assert read(path) == [(0, 0), (1, 100), (2, 300), (3, 400)]
    assert [level(frame.image) for frame in video.read_frames(path)] == [0, 1, 2, 3]
    with video.copy_video(path, tmp_path, "copy") as copy:
        for frame in video.read_frames(path):
            copy.write(frame.image, frame.seconds)
    assert copy.path.name == "copy.mp4" and read(copy.path) == read(path)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(VideoError, match=f"a{ending} .*expected a complete"):
        read(path)


def test_one_frame_per_period(clip, tmp_path):
    assert read(clip, 0.5) == [(0, 0), (5, 500), (10, 1000), (15, 1500)]
    # The first frame of each period, if none is exactly at its start.
    assert read(clip, 0.25) == [(n, 100 * n) for n in (0, 3, 5, 8, 10, 13, 15, 18)]
    assert read(clip, 60) == [(0, 0)]
    late = write_clip(tmp_path / "late.mkv", steps(4), [0, 90, 1950, 2100])
    assert read(late, 1.0) == [(0, 0), (2, 1950)] or read(late, 1.0) == [(0, 0), (2, 1950), (3, 2100)]


def test_a_start_in_the_middle_gives_the_same_frames(clip):
    for every in (None, 0.5):
        whole = read(clip, every)
        for start in (0, 1, 5, 6, 19, 20, 99):
            assert read(clip, every, start) == [entry for entry in whole if entry[0] >= start]


@pytest.mark.parametrize("rotation", (0, 90, 180, -90))
def test_frames_are_upright_as_players_show_them(rotation, tmp_path):
    """Phones store the sensor's image and its orientation as a matrix."""
    path = write_clip(tmp_path / "clip.mp4", steps(2), rotate=rotation)
    frame = next(video.read_frames(path))
    bright = np.argwhere(frame.image[..., 0] > 200).mean(axis=0) / frame.image.shape[:2]
    turned = np.rot90(steps(1)[0], rotation // 90)
    expected = np.argwhere(turned[..., 0] > 200).mean(axis=0) / turned.shape[:2]
    assert frame.image.shape == turned.shape
    np.testing.assert_allclose(bright, expected, atol=0.02)


def test_a_file_in_memory(clip):
    assert read(io.BytesIO(clip.read_bytes())) == read(clip)
    with pytest.raises(VideoError, match="the video cannot be decoded"):
        read(io.BytesIO(b"hello"))


def test_what_is_no_video_is_refused_by_name(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "tone.mp4").write_bytes(encode_tone())
    for name, message in {
        "text.mp4": "text.mp4 cannot be decoded .*: expected a complete video file",
        "empty.mp4": "empty.mp4 cannot be decoded",
        "tone.mp4": "tone.mp4 has no video",
        "missing.mp4": "missing.mp4 cannot be opened: No such file",
    }.items():
        for function in (read, video.read_header):
            with pytest.raises(VideoError, match=message):
                function(tmp_path / name)


@pytest.fixture(scope="module")
def encoded():
    """Returns small videos in three containers."""
    return [encode_clip(kind=kind) for kind in ("mp4", "matroska", "avi")]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(which=st.integers(0, 2), data=st.data())
def test_a_mutated_file_is_read_or_refused(which, data, encoded):
    """PyAV reports unknown codecs, invalid UTF-8, and other damage with various exceptions."""
    content = bytearray(encoded[which])
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=10)):
        content[place] = data.draw(st.integers(0, 255))
    for function in (video.read_header, lambda file: list(video.read_frames(file, 0.25))):
        with contextlib.suppress(VideoError):
            function(io.BytesIO(bytes(content)))


def test_an_unknown_codec_is_refused_and_unknown_sound_is_not_copied(tmp_path):
    original = write_clip(tmp_path / "clip.mkv", steps(3), sound="libopus")
    content = original.read_bytes()
    original.write_bytes(content.replace(b"A_OPUS", b"A_WHAT"))
    with video.copy_video(original, tmp_path, "copy") as copy:
        copy.write(steps(1)[0], 0.0)
    assert len(read(copy.path)) == 1
    original.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_UNKNOWN/ABCDE"))
    for function in (video.read_header, read):
        with pytest.raises(VideoError, match="clip.mkv has an unknown video codec: convert it to H.264"):
            function(original)


def test_a_video_cut_off_gives_its_frames_and_then_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "clip.mkv", list(noise), rate=10)
    content = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    frames = video.read_frames(tmp_path / "cut.mkv")
    found = []
    with pytest.raises(
        VideoError, match=r"cut.mkv ends after [\d.]+ of 6.0 seconds|cut.mkv cannot be decoded"
    ):
        for frame in frames:
            found.append(frame.number)
    assert 20 < len(found) < 40 and found == list(range(len(found)))


def test_a_video_without_frames_says_so(clip, tmp_path):
    with av.open(str(clip)) as file:
        start = min(packet.pos for packet in file.demux(file.streams.video[0]) if packet.size)
    (tmp_path / "head.mkv").write_bytes(clip.read_bytes()[:start])
    with pytest.raises(VideoError, match="head.mkv (has no decodable frame|cannot be decoded)"):
        read(tmp_path / "head.mkv")


def test_the_header_says_what_is_read(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", steps(20), rate=10)
    assert video.read_header(path) == ((64, 48), 2.0, 20)
    assert video.read_header(path, 0.5).frames == len(read(path, 0.5)) == 4


@pytest.mark.parametrize(("sound", "ending"), [("aac", ".mp4"), ("pcm_s16le", ".mkv"), (None, ".mp4")])
def test_a_copy_has_new_pictures_at_the_old_times_and_the_same_sound(sound, ending, tmp_path):
    times = [0, 100, 250, 300, 1200]
    original = write_clip(tmp_path / "clip.mkv", steps(5), times, sound=sound)
    with video.copy_video(original, tmp_path, "copy") as copy:
        for frame in video.read_frames(original):
            copy.write(255 - frame.image, frame.seconds)
        assert not copy.path.exists()  # until it is complete
    assert copy.path == tmp_path / f"copy{ending}"
    frames = list(video.read_frames(copy.path))
    assert [round(1000 * frame.seconds) for frame in frames] == times
    means = [frame.image[-1, -1].mean() for frame in frames]
    np.testing.assert_allclose(means, [255 - 8 - 8 * i for i in range(5)], atol=6)
    packets = []
    for path in (original, copy.path):
        with av.open(str(path)) as file:
            streams = file.streams.audio
            packets.append([bytes(packet) for packet in file.demux(streams[0])] if streams else [])
    assert packets[0] == packets[1] and bool(packets[0]) == bool(sound)


def test_a_copy_that_is_not_finished_does_not_appear(tmp_path):
    original = write_clip(tmp_path / "clip.mp4", steps(3))
    with pytest.raises(KeyboardInterrupt):
        with video.copy_video(original, tmp_path, "copy") as copy:
            copy.write(steps(1)[0], 0.0)
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_odd_sizes_lose_their_last_row_and_column(tmp_path):
    original = write_clip(tmp_path / "clip.mp4", steps(2))
    with video.copy_video(original, tmp_path, "copy") as copy:
        for image in steps(2, 49, 65):
            copy.write(image, 0.0 if image[-1, -1, 0] == 8 else 0.1)
    assert next(video.read_frames(copy.path)).image.shape == (48, 64, 3)
