"""picamera2 without a camera, with the rules of the real one (0.3.12 to 0.3.38).

What it is strict about: configurations are plain dictionaries with known streams; sizes are even tuples; `lores` is not
larger than `main`; `configure` may change what was asked for, and says so only in `camera_config`; buffers come back
through `request.release()`, there are few, and without one the camera stands still; callbacks run in its own thread,
and a request that nobody acquired is released, and its memory written again, when they return.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fakes import libcamera

BUFFERS = 3


class Hardware:
    """What is plugged in, for a test to arrange and look at."""

    def __init__(self) -> None:
        self.cameras: list[dict[str, Any]] = [
            {"Model": "imx708", "Location": 2, "Rotation": 180, "Id": "/base/i2c/imx708@1a", "Num": 0}
        ]
        self.stride_align = 64
        self.adjust: Callable[[dict[str, Any]], None] = lambda config: None
        self.controls = {
            "FrameDurationLimits",
            "ExposureTime",
            "AnalogueGain",
            "AwbMode",
            "AfMode",
            "LensPosition",
        }
        self.delivers = True
        self.fails_to_start = ""
        self.hangs_on_close = threading.Event()
        self.hangs_on_close.set()
        self.free_buffers = BUFFERS
        self.opened: list[Picamera2] = []
        self.used_after_release = 0


hardware = Hardware()


class Picamera2:
    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return hardware.cameras

    def __init__(
        self, camera_num: int = 0, verbose_console: object = None, tuning: str | None = None
    ) -> None:
        if camera_num >= len(hardware.cameras):
            raise RuntimeError(
                f'No camera number {camera_num} found - use "rpicam-hello --list-cameras" to check connected cameras'
            )
        if any(camera.is_open for camera in hardware.opened):
            busy = RuntimeError("Failed to acquire camera: Device or resource busy")
            raise RuntimeError("Camera __init__ sequence did not complete.") from busy
        self.tuning = tuning
        self.is_open = True
        self.started = False
        self.camera_config: dict[str, Any] = {}
        self.post_callback: Callable[[CompletedRequest], None] | None = None
        self.camera_controls = dict.fromkeys(hardware.controls, (0, 1, 0))
        self._thread: threading.Thread | None = None
        hardware.opened.append(self)

    def create_video_configuration(
        self,
        main: dict[str, Any] = {},  # noqa: B006 (the real signature)
        lores: dict[str, Any] | None = None,
        raw: dict[str, Any] | None = {},  # noqa: B006
        transform: libcamera.Transform = libcamera.Transform(),  # noqa: B008
        colour_space: libcamera.ColorSpace | None = None,
        buffer_count: int = 6,
        controls: dict[str, Any] = {},  # noqa: B006
        display: str | None = "main",
        encode: str | None = "main",
        queue: bool = True,
        sensor: dict[str, Any] = {},  # noqa: B006
        use_case: str = "video",
    ) -> dict[str, Any]:
        main = {"format": "XBGR8888", "size": (1280, 720), "preserve_ar": True} | main
        if lores is not None:
            lores = {"format": "YUV420", "size": main["size"], "preserve_ar": False} | lores
        small = main["size"][0] < 1280 or main["size"][1] < 720
        space = colour_space or (libcamera.ColorSpace.Smpte170m() if small else libcamera.ColorSpace.Rec709())
        return {
            "use_case": use_case, "transform": transform, "colour_space": space, "buffer_count": buffer_count,
            "queue": queue, "main": main, "lores": lores, "raw": raw,
            "controls": {"FrameDurationLimits": (33333, 33333)} | controls,
            "sensor": sensor, "display": display, "encode": encode,
        }  # fmt: skip

    def configure(self, config: dict[str, Any]) -> None:
        if self.started:
            raise RuntimeError("Camera must be stopped before configuring")
        for name in ("main", "lores"):
            stream = config[name]
            if stream is None:
                continue
            if not isinstance(stream["size"], tuple) or len(stream["size"]) != 2:
                raise RuntimeError(name + " stream should be a tuple")
            if stream["size"][0] % 2 or stream["size"][1] % 2:
                raise RuntimeError("width and height should be even")
        if config["lores"] is not None and (
            config["lores"]["size"][0] > config["main"]["size"][0]
            or config["lores"]["size"][1] > config["main"]["size"][1]
        ):
            raise RuntimeError("lores stream dimensions may not exceed main stream")
        unknown = set(config["controls"]) - hardware.controls
        if unknown:
            raise RuntimeError(f"Control {unknown.pop()} is not advertised by libcamera")
        config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
        hardware.adjust(config)
        for name in ("main", "lores"):
            if config[name] is not None:
                stream = config[name]
                row = stream["size"][0] * (1 if stream["format"] == "YUV420" else 3)
                stream["stride"] = -(-row // hardware.stride_align) * hardware.stride_align
                rows = stream["size"][1] * 3 // 2 if stream["format"] == "YUV420" else stream["size"][1]
                stream["framesize"] = stream["stride"] * rows
        self.camera_config = config

    def start(self) -> None:
        if not self.camera_config:
            raise RuntimeError("Camera has not been configured")
        if hardware.fails_to_start:
            raise RuntimeError(hardware.fails_to_start)
        self.started = True
        hardware.free_buffers = BUFFERS
        self._thread = threading.Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def close(self) -> None:
        hardware.hangs_on_close.wait(30)
        self.started = self.is_open = False
        if self._thread is not None:
            self._thread.join()

    def _deliver(self) -> None:
        index = 0
        while self.started:
            time.sleep(0.005)
            if not hardware.delivers or hardware.free_buffers == 0:
                continue
            hardware.free_buffers -= 1
            request = CompletedRequest(self.camera_config, index)
            index += 1
            if self.post_callback:
                self.post_callback(request)
            request.release()


class CompletedRequest:
    """A picture whose luma is its number, U 100, V 150; the padding of its rows is 255."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        self.config = config
        self.ref_count = 1
        self.memory: dict[str, Any] = {}
        self._stamp = time.monotonic_ns() - 10_000_000
        for name in ("main", "lores"):
            if config[name] is not None:
                self.memory[name] = _draw(config[name], index)

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": self._stamp, "ExposureTime": 10000}

    def acquire(self) -> None:
        if self.ref_count == 0:
            raise RuntimeError("CompletedRequest: acquiring lock with ref_count 0")
        self.ref_count += 1

    def release(self) -> None:
        self.ref_count -= 1
        if self.ref_count < 0:
            raise RuntimeError("CompletedRequest: lock now has negative ref_count")
        if self.ref_count == 0:
            for memory in self.memory.values():
                memory[:] = 0  # the next picture is being written
            hardware.free_buffers += 1


def _draw(stream: dict[str, Any], index: int) -> Any:
    (width, height), stride = stream["size"], stream["stride"]
    memory = np.full(stream["framesize"], 255, np.uint8)
    if stream["format"] != "YUV420":
        memory.reshape(height, stride)[:, : 3 * width].reshape(height, width, 3)[:] = (200, 100, 50)
        return memory
    luma_end = stride * height
    chroma = stride // 2 * (height // 2)
    memory[:luma_end].reshape(height, stride)[:, :width] = 50 + index % 100
    for plane, value in ((0, 100), (1, 150)):
        start = luma_end + plane * chroma
        memory[start : start + chroma].reshape(height // 2, stride // 2)[:, : width // 2] = value
    return memory


class MappedArray:
    def __init__(
        self, request: CompletedRequest, stream: str, reshape: bool = True, write: bool = True
    ) -> None:
        self._request, self._stream = request, stream
        self.array: Any = None

    def __enter__(self) -> MappedArray:
        if self._request.ref_count == 0:
            hardware.used_after_release += 1
        self._view = memoryview(self._request.memory[self._stream])
        self.array = np.asarray(self._view)
        return self

    def __exit__(self, *_: object) -> None:
        self.array = None
        self._view.release()  # BufferError while somebody still refers to it, as with the real one's mmap
