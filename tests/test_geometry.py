"""Crop, rotation and mirroring against what NumPy says they are."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.geometry import Geometry, Rotation, output_size, place
from edge_seg.pyramid import Yuv444
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import GstSettings, SyntheticSettings, make_source
from edge_seg.types import F32, I420, U8


def expected(plane: U8, geometry: Geometry) -> U8:
    turned = np.rot90(plane, -geometry.rotate // 90)
    return turned[:, ::-1] if geometry.mirror else turned


def noise(rng: np.random.Generator, width: int, height: int) -> I420:
    picture = I420.allocate(width, height)
    picture.buffer[:] = rng.integers(0, 256, picture.buffer.size, dtype=np.uint8)
    return picture


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_every_turn_of_a_picture(rotate: Rotation, mirror: bool) -> None:
    source = noise(np.random.default_rng(0), 322, 178)
    geometry = Geometry(rotate=rotate, mirror=mirror)
    out = I420.allocate(*output_size(322, 178, geometry))
    place(source.planes, geometry, out)
    for plane, result in zip(source.planes, out.planes, strict=True):
        np.testing.assert_array_equal(result, expected(plane, geometry))


def test_crop_takes_whole_chroma_samples() -> None:
    source = noise(np.random.default_rng(1), 100, 60)
    geometry = Geometry(crop_left=0.11, crop_right=0.2, crop_top=0.25)
    out = I420.allocate(*output_size(100, 60, geometry))
    place(source.planes, geometry, out)
    assert (out.width, out.height) == (70, 46)
    np.testing.assert_array_equal(out.y, source.y[14:60, 10:80])
    np.testing.assert_array_equal(out.u, source.u[7:30, 5:40])


def test_an_odd_picture_passes_unchanged_and_is_cut_even_when_turned() -> None:
    source = noise(np.random.default_rng(2), 33, 17)
    assert output_size(33, 17, Geometry()) == (33, 17)
    out = I420.allocate(33, 17)
    place(source.planes, Geometry(), out)
    np.testing.assert_array_equal(out.v, source.v)
    assert output_size(33, 17, Geometry(rotate=90)) == (16, 32)
    turned = I420.allocate(16, 32)
    place(source.planes, Geometry(rotate=90), turned)
    np.testing.assert_array_equal(turned.y, np.rot90(source.y[:16, :32], -1))
    np.testing.assert_array_equal(turned.u, np.rot90(source.u[:8, :16], -1))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    shares=st.tuples(*[st.floats(0, 0.9)] * 4),
    rotate=st.sampled_from([0, 90, 180, 270]),
    mirror=st.booleans(),
)
def test_any_geometry_leaves_a_picture(
    width: int, height: int, shares: tuple[float, float, float, float], rotate: Rotation, mirror: bool
) -> None:
    geometry = Geometry(*shares, rotate=rotate, mirror=mirror)
    out_width, out_height = output_size(width, height, geometry)
    assert out_width >= 1
    assert out_height >= 1
    place(
        noise(np.random.default_rng(3), width, height).planes, geometry, I420.allocate(out_width, out_height)
    )


def test_a_picture_of_the_wrong_size_is_refused() -> None:
    source = I420.allocate(16, 8)
    with pytest.raises(ValueError, match="expected"):
        place(source.planes, Geometry(rotate=90), I420.allocate(16, 8))


TURNED = Geometry(crop_left=0.25, crop_top=0.1, rotate=90, mirror=True)


def test_a_drawn_source_turns_its_picture_and_its_mask_alike() -> None:
    settings_ = SyntheticSettings(width=128, height=96, realtime=False)
    frames = []
    for geometry in (Geometry(), TURNED):
        source = make_source(settings_, geometry)
        source.open()
        frame = source.read(10**9)
        assert frame is not None
        assert frame.truth is not None
        assert (source.format.width, source.format.height) == (frame.picture.width, frame.picture.height)
        frames.append((frame.picture, frame.truth))
        source.close()
    (whole, mask), (picture, truth) = frames
    wanted = I420.allocate(*output_size(128, 96, TURNED))
    place(whole.planes, TURNED, wanted)
    assert (picture.width, picture.height) == (86, 96)
    np.testing.assert_array_equal(picture.u, wanted.u)
    np.testing.assert_array_equal(truth, expected(mask[10:96, 32:128], TURNED))


def test_a_buffer_of_gstreamer_is_turned_as_it_is_copied() -> None:
    pytest.importorskip("gi")
    from edge_seg import gstreamer
    from edge_seg.sources.gst import copy_picture

    source = noise(np.random.default_rng(3), 66, 50)
    buffer = gstreamer.to_buffer(source, 0)
    wanted = I420.allocate(*output_size(66, 50, TURNED))
    place(source.planes, TURNED, wanted)
    got = copy_picture(buffer, 66, 50, source.matrix, TURNED)
    for plane, result in zip(wanted.planes, got.planes, strict=True):
        np.testing.assert_array_equal(result, plane)


class Nobody:
    """A model that sees no one."""

    name = "nobody"
    runtime_name = "none"
    input_size = (32, 32)

    def infer(self, small: Yuv444) -> F32:
        return np.zeros((32, 32), np.float32)


class Output(Sink):
    """Takes the size that it is opened with, and the first picture."""

    name = "output"

    def __init__(self) -> None:
        self.formats: list[OutputFormat] = []
        self.pictures: list[I420] = []
        self.shown = threading.Event()

    def open(self, output: OutputFormat) -> None:
        self.formats.append(output)

    def reformat(self, output: OutputFormat) -> None:
        self.formats.append(output)

    def push(self, picture: I420, captured_ns: int) -> None:
        if len(self.pictures) < 2:
            self.pictures.append(picture)
        else:
            self.shown.set()

    def close(self) -> None:
        pass


def test_the_configured_geometry_is_the_one_that_leaves() -> None:
    """The outputs are opened with the turned size from the first moment on: no viewer sees it change."""
    output = Output()
    config = Config(source=SyntheticSettings(width=128, height=96, motion="still"), geometry=TURNED)
    engine = Engine(config, sinks=[output], build_model=lambda _: Nobody())
    timer = threading.Timer(60, output.shown.set)
    timer.start()
    engine.run(output.shown)
    timer.cancel()
    assert {(f.width, f.height) for f in output.formats} == {(86, 96)}
    assert {(p.width, p.height) for p in output.pictures} == {(86, 96)}


@pytest.mark.parametrize("kind", ["synthetic", "gst"])
def test_an_open_source_shows_the_new_view_from_the_next_picture_on(kind: str) -> None:
    if kind == "gst":
        pytest.importorskip("gi")
        launch = "videotestsrc pattern=smpte horizontal-speed=1 ! video/x-raw,format=I420,width=128,height=96"
        source = make_source(GstSettings(launch=launch))
    else:
        source = make_source(SyntheticSettings(width=128, height=96, motion="still", noise=0))
    source.open()
    before = source.read(2 * 10**9)
    assert before is not None
    source.geometry = TURNED  # type: ignore[attr-defined]
    after = source.read(2 * 10**9)
    assert after is not None
    assert (after.picture.width, after.picture.height) == (86, 96)
    assert (source.format.width, source.format.height) == (86, 96)
    assert after.seq > before.seq
    source.close()
