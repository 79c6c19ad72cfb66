"""A new configuration while frames flow: every key does what the table says, and nothing else is lost by it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np
import pytest
from pydantic import BaseModel

from edge_seg.backgrounds import BackgroundSettings, open_background
from edge_seg.budget import ladder
from edge_seg.config import Config, LatencySettings
from edge_seg.engine import Engine
from edge_seg.errors import ConfigError, EdgeSegError, ModelError
from edge_seg.geometry import Geometry
from edge_seg.matte import MatteSettings
from edge_seg.model_card import DelegateSettings, ModelCard, ModelSettings
from edge_seg.pyramid import Yuv444
from edge_seg.reload import EFFECTS, changed_keys, effect_of
from edge_seg.sinks.rtsp import MulticastSettings, RtspUser, TlsSettings
from edge_seg.sources import SourceSettings, SyntheticSettings
from edge_seg.types import F32, I420, Frame
from tests.direct import DirectOutputs
from tests.test_engine import FPS, Metronome, Model, Recorder

BASE = Config(source=SyntheticSettings(), latency={"budget_ms": 500})  # type: ignore[arg-type]


class Running:
    """An engine with a fast source and model, in a thread. Use as a context manager."""

    def __init__(
        self,
        config: Config = BASE,
        build_model: Callable[[Any], Any] = lambda _: Model(0.001),
        source: Callable[[], Metronome] = Metronome,
    ) -> None:
        self._make = source
        self.recorder = Recorder(10**9)
        self.outputs = DirectOutputs(self.recorder)
        self.sources: list[Metronome] = []
        self.engine = Engine(config, outputs=self.outputs, build_source=self._source, build_model=build_model)
        self.recorder.engine = self.engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.engine.run, args=(self._stop,))

    def _source(self) -> Metronome:
        self.sources.append(self._make())
        if isinstance(self.sources[-1], InStep):
            self.sources[-1].engine = self.engine
        return self.sources[-1]

    def __enter__(self) -> "Running":
        self.start()
        self.wait_for_frames(3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait_for_frames(self, count: int) -> None:
        """Until so many more with a mask have left."""
        wanted = len(self.recorder.shown) + count
        self.wait_until(lambda: len(self.recorder.shown) >= wanted)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def seqs(self) -> list[int]:
        return [mask.seq for _, mask in self.recorder.shown if mask is not None]


def leaves(section: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, its section, name) of everything that can be set in a configuration, below the sections as they are."""
    names = (
        list(type(section).model_fields)
        if isinstance(section, BaseModel)
        else [f.name for f in fields(section)]
    )
    for name in names:
        value, below = getattr(section, name), f"{key}.{name}" if key else name
        if is_dataclass(value) or isinstance(value, BaseModel):
            yield from leaves(value, below)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from leaves(item, f"{below}[{index}]")
        else:
            yield below, section, name


def test_every_key_of_the_schema_has_an_effect_and_every_effect_a_key() -> None:
    keys = [key for key, _, _ in leaves(Config())]
    for kind in get_args(SourceSettings):
        keys += [f"source.{field.name}" for field in fields(kind)]
    assert len(keys) > 60
    for key in keys:
        effect_of(key)
    sections = {key.split(".")[0].split("[")[0] for key in keys}
    assert sections == set(Config.model_fields) == {key.split(".")[0] for key in EFFECTS}
    assert all(
        any(key == name or key.startswith((f"{name}.", f"{name}[")) for key in keys) for name in EFFECTS
    )


def test_a_key_that_nobody_classified_is_refused() -> None:
    with pytest.raises(LookupError, match="brightness"):
        effect_of("brightness")


OTHERS: dict[str, Any] = {
    "background.path": Path("/nowhere.png"),  # of a colour: no more than remembered
    "background.colour": "#123456",
    "background.type": "blur",
    "flow.block_px": 8,
    "geometry.rotate": 180,
    "matte.radius": 6,
    "matte.smoothing": 4,
    "web.address": "::1",
    "web.port": 0,
    "web.backgrounds": (Path("/nowhere.png"),),
    "web.hosts": ("other",),
    "web.token_file": Path("/nowhere"),
    "model.file": "other",
    "model.delegates": (DelegateSettings("x.so"),),
    "model.card": ModelCard(),
    "source.motion": "walk",
    "source.type": None,
    "outputs[0].type": None,
    "outputs[0].users": (RtspUser("anna"),),
    "outputs[0].tls": TlsSettings("/nowhere.pem", "/nowhere.pem"),
    "outputs[0].transports": ("tcp",),
    "outputs[0].multicast": MulticastSettings(),
}
"""Another allowed value of the keys that are not numbers, yes or no, or one of a list of words."""


def other_value(key: str, section: Any, name: str) -> Any:
    """A value that the key does not have now."""
    value = getattr(section, name)
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.1
    hint = get_type_hints(type(section))[name]
    return next((word for word in get_args(hint) if isinstance(word, str) and word != value), "other")


def with_value(config: Config, key: str, value: Any) -> Config:
    data = config.model_dump()
    where: Any = data
    *path, last = key.replace("[", ".").replace("]", "").split(".")
    for part in path:
        where = where[int(part)] if part.isdigit() else where[part]
    where[last] = value
    return Config.model_construct(
        **{**dict(config), path[0] if path else last: _rebuilt(config, data, path, last)}
    )


def _rebuilt(config: Config, data: dict[str, Any], path: list[str], last: str) -> Any:
    """The section that was changed, as an object of its own type, unvalidated: the engine gets what it is given."""
    if not path:
        return data[last]
    section = getattr(config, path[0])
    if path[0] == "outputs":
        return [replace(section[0], **{last: data["outputs"][0][last]})]
    if isinstance(section, BaseModel):
        return section.model_copy(update={last: data[path[0]][last]})
    return replace(section, **{last: data[path[0]][last]})


class Fast(Metronome):
    """Two hundred frames a second: a test for every key waits for some of them."""

    def read(self, timeout_ns: int) -> Frame | None:
        self._next_s += 1 / 200 - 1 / FPS
        return super().read(timeout_ns)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Running(source=Fast) as started:
        yield started


@pytest.mark.parametrize("key", [key for key, _, _ in leaves(BASE) if OTHERS.get(key, "") is not None])
def test_every_key_is_applied_while_frames_flow(running: Running, key: str) -> None:
    _, section, name = next(found for found in leaves(BASE) if found[0] == key)
    engine, sources = running.engine, len(running.sources)
    new = with_value(engine.config, key, other_value(key, section, name))
    report = engine.reload(new)
    assert [change.key for change in report.changes] == [key]
    assert engine.config == new
    effect = report.changes[0].effect
    if effect == "source":
        running.wait_until(lambda: len(running.sources) > sources)
    running.wait_for_frames(2)
    assert (len(running.sources) > sources) == (effect == "source")
    stage = engine._stage
    assert stage is not None
    pipeline = stage.pipeline
    assert (pipeline._privacy, pipeline._fusion._settings) == (new.privacy, new.fusion)

    def works_by_it() -> bool:
        plan = engine.status().plan  # a busy machine may have stepped down from what is configured
        matte, flow = (
            replace(new.matte, quality=plan.matte_quality),
            replace(new.flow, block_px=plan.block_px),
        )
        return (pipeline._matte_settings, pipeline._flow_settings) == (matte, flow)

    running.wait_until(works_by_it)
    assert engine.status().plan in ladder(new.matte.quality, new.flow.block_px)
    assert engine._pacer._budget_ns == round(new.latency.budget_ms * 1e6)
    assert (running.outputs.applied[-1:] == [new.outputs]) == (effect == "output")
    engine.reload(BASE)
    assert engine.config == BASE
    running.outputs.applied.clear()
    running.wait_for_frames(1)


class InStep(Metronome):
    """Delivers a frame when the one before has left: what is missing then was not lost to a busy machine."""

    engine: Engine

    def read(self, timeout_ns: int) -> Frame | None:
        deadline_ns = time.monotonic_ns() + timeout_ns
        # But for the first, which makes the loop ready and is not shown.
        while self.engine.frames_out < self._seq - 1:
            if time.monotonic_ns() > deadline_ns:
                return None
            time.sleep(0.001)
        return super().read(timeout_ns)


def test_a_storm_of_reloads_loses_no_frame_and_leaves_no_thread(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "paper.png"), np.full((40, 60, 3), 90, np.uint8))
    with Running(source=InStep) as running:
        engine = running.engine
        before, first = engine.status(), len(running.seqs())
        threads = threading.active_count()
        for number in range(20):
            background = (
                BackgroundSettings(type="image", path=tmp_path / "paper.png")
                if number % 3 == 0
                else BackgroundSettings(type="blur", strength=number / 20)
                if number % 3 == 1
                else BackgroundSettings(colour=f"#0000{number:02x}")
            )
            quality = ("fast", "balanced", "best")[number % 3]
            engine.reload(BASE.model_copy(update={"background": background, "matte": MatteSettings(quality)}))
            if number % 5 == 0:
                engine.reload(engine.config.model_copy(update={"model": ModelSettings(threads=1 + number)}))
        running.wait_for_frames(5)
        after, seqs = engine.status(), running.seqs()[first:]
        assert seqs == sorted(set(seqs))
        assert after.frames_dropped == before.frames_dropped
        assert seqs == list(range(seqs[0], seqs[-1] + 1)), "a frame left without its mask"
        assert len(running.sources) == 1
        assert threading.active_count() <= threads


def test_what_takes_long_is_done_beside_the_frame_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[threading.Thread] = []

    def build_model(_: object) -> Model:
        opened.append(threading.current_thread())
        return Model(0.001)

    def open_slowly(*arguments: Any) -> Any:
        opened.append(threading.current_thread())
        return open_background(*arguments)

    with Running(build_model=build_model) as running:
        monkeypatch.setattr("edge_seg.stage.open_background", open_slowly)
        opened.clear()
        update = {"background": BackgroundSettings(colour="red"), "model": ModelSettings(threads=1)}
        report = running.engine.reload(BASE.model_copy(update=update))
        running.wait_for_frames(2)
        assert opened == [threading.current_thread()] * 2
        assert "background.colour (live)" in str(report)
        assert "model.threads (model swapped)" in str(report)


def test_a_background_that_cannot_be_opened_is_refused_and_all_stays(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG but no more")
    wanted = BASE.model_copy(
        update={
            "background": BackgroundSettings(type="image", path=broken),
            "geometry": Geometry(mirror=True),
            "log": BASE.log,
        }
    )
    with Running() as running:
        stage = running.engine._stage
        with pytest.raises(ConfigError, match=r"background\.path"):
            running.engine.reload(wanted)
        running.wait_for_frames(2)
        assert running.engine.config is BASE
        assert running.engine._stage is stage


def test_a_model_that_is_refused_or_fails_leaves_the_old_one_at_work() -> None:
    class Broken(Model):
        def infer(self, small: Yuv444) -> F32:
            raise ModelError("cannot")

    models: list[Model] = [Model(0.001), Broken(0)]
    with Running(build_model=lambda _: models.pop(0)) as running:
        before = running.engine.status().model_runs
        with pytest.raises(ModelError, match="cannot"):
            running.engine.reload(BASE.model_copy(update={"model": ModelSettings(threads=1)}))
        running.wait_for_frames(3)
        assert running.engine.status().model_runs > before
        assert running.engine.config is BASE


def test_a_model_that_hangs_is_replaced_though_frames_wait_for_it() -> None:
    released = threading.Event()

    class Hanging(Model):
        def infer(self, small: Yuv444) -> F32:
            released.wait(30)
            return super().infer(small)

    models: list[Model] = [Hanging(0), Model(0.001)]
    exact = BASE.model_copy(update={"mask_sync": "exact"})
    running = Running(exact, lambda _: models.pop(0))
    running.start()
    running.wait_until(lambda: running.engine._stage is not None)
    running.engine.reload(exact.model_copy(update={"model": ModelSettings(threads=1)}))
    running.wait_for_frames(3)
    released.set()
    running.stop()


def test_a_new_model_with_another_grid_takes_over_between_two_frames() -> None:
    class Larger(Model):
        name = "larger"

        def infer(self, small: Yuv444) -> F32:
            assert small.y.shape == (36, 48)
            return np.ones((36, 48), np.float32)

    models: list[Model] = [Model(0.001), Larger(0, (48, 36))]
    with Running(build_model=lambda _: models.pop(0)) as running:
        report = running.engine.reload(BASE.model_copy(update={"model": ModelSettings(threads=1)}))
        assert [change.effect for change in report.changes] == ["model"]
        running.wait_for_frames(3)
        mask = running.engine.shown_mask
        assert mask is not None
        assert mask.probability.shape == (36, 48)
        seqs = running.seqs()
        assert seqs == sorted(set(seqs))


def test_a_follower_that_refuses_takes_those_before_it_back() -> None:
    levels: list[str] = []

    def refuse(_: Config) -> None:
        raise ConfigError("web.port: no")

    with Running() as running:
        running.engine.followers |= {"log": lambda new: levels.append(new.log.level), "web": refuse}
        wanted = with_value(with_value(BASE, "log.level", "debug"), "web.port", 1)
        with pytest.raises(ConfigError, match=r"web\.port"):
            running.engine.reload(wanted)
        assert levels == ["debug", "info"]
        assert running.engine.config is BASE


def test_a_frame_loop_that_does_not_come_to_it_takes_the_followers_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels: list[str] = []
    engine = Running().engine  # never started
    engine.followers["log"] = lambda new: levels.append(new.log.level)
    monkeypatch.setattr("edge_seg.between_frames.PATIENCE_S", 0.05)
    with pytest.raises(EdgeSegError, match="did not come to it"):
        engine.reload(with_value(BASE, "log.level", "debug"))
    assert levels == ["debug", "info"]
    assert engine.config is BASE


def test_a_mirrored_view_forgets_the_mask_of_the_view_before() -> None:
    """The mask of before, on the picture of after, would show the room."""
    late = BASE.model_copy(update={"latency": LatencySettings(budget_ms=10)})
    with Running(late, lambda _: Model(0.09)) as running:
        engine = running.engine
        first = len(running.seqs())
        observed: list[int] = []
        push = running.recorder.push

        def look(picture: I420, captured_ns: int) -> None:
            mask = engine.shown_mask
            if mask is not None:
                observed.append(mask.observed_seq)
            push(picture, captured_ns)

        running.recorder.push = look  # type: ignore[method-assign]
        engine.reload(late.model_copy(update={"geometry": Geometry(mirror=True)}))
        running.wait_for_frames(10)
        break_seq = engine._supervisor.break_seq
        assert break_seq > 0
        assert running.sources[0].geometry == Geometry(mirror=True)  # type: ignore[attr-defined]
        later = [seq for seq in observed if seq >= break_seq]
        assert len(later) > 3
        after_break = running.seqs()[first:]
        assert after_break == sorted(set(after_break))
        for seen, shown in zip(reversed(observed), reversed(after_break), strict=False):
            assert shown < break_seq or seen >= break_seq


def test_who_asks_after_the_end_is_told_so() -> None:
    with Running() as running:
        pass
    with pytest.raises(EdgeSegError, match="stopping"):
        running.engine.reload(BASE.model_copy(update={"mask_sync": "exact"}))


def test_a_file_with_new_content_under_the_old_name_is_a_change(tmp_path: Path) -> None:
    paper = tmp_path / "paper.png"
    cv2.imwrite(str(paper), np.full((40, 60, 3), 90, np.uint8))
    config = BASE.model_copy(update={"background": BackgroundSettings(type="image", path=paper)})
    with Running(config) as running:
        assert running.engine.reload(config).changes == ()
        cv2.imwrite(str(paper), np.full((44, 60, 3), 200, np.uint8))
        report = running.engine.reload(config)
        assert [change.key for change in report.changes] == ["background.path"]


def test_changed_keys_go_as_far_down_as_both_have_the_same_keys() -> None:
    assert changed_keys(BASE, BASE) == []
    assert changed_keys(BASE, with_value(BASE, "outputs[0].bitrate_kbps", 100)) == ["outputs[0].bitrate_kbps"]
    assert changed_keys(BASE, Config()) == ["source.type", "latency.budget_ms"]
    two = BASE.model_copy(update={"outputs": [*BASE.outputs, replace(BASE.outputs[0], port=1)]})
    assert changed_keys(BASE, two) == ["outputs"]
