"""The one place that knows the two TensorFlow Lite runtimes, ai-edge-litert and tflite-runtime."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import logging
import math
import platform
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_seg.errors import ModelError
from edge_seg.model_card import DelegateSettings, ModelSettings

log = logging.getLogger(__name__)

MAX_INPUT_VALUES = 4096 * 4096 * 3
"""More than a mask model takes; a damaged shape must not make the runtime allocate all memory."""

RuntimeChoice = Literal["auto", "litert", "tflite"]
_PACKAGES: dict[str, tuple[str, str]] = {
    "litert": ("ai-edge-litert", "ai_edge_litert.interpreter"),
    "tflite": ("tflite-runtime", "tflite_runtime.interpreter"),
}
MAX_MESSAGE = 300
_PLUGIN_SYMBOLS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True, slots=True)
class Runtime:
    """An installed runtime."""

    kind: str
    """litert or tflite."""
    name: str
    """Package and version, for the log: ai-edge-litert 2.3.0."""
    module: Any

    @property
    def slow_with_int8(self) -> bool:
        """tflite-runtime's x86 wheel does not hand int8 to XNNPACK: ten times slower than ai-edge-litert."""
        return self.kind == "tflite" and platform.machine().lower() in ("x86_64", "amd64", "i686")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output tensor. A scale of zero means that it is not quantised."""

    name: str
    index: int
    shape: tuple[int, ...]
    """A side that the model leaves open is -1."""
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        shape = "x".join("?" if side < 0 else str(side) for side in self.shape)
        return f"tensor {self.name!r} ({shape or 'scalar'} {self.dtype})"


@dataclass(frozen=True, slots=True)
class Operator:
    """One node of a model's graph."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]


def find_runtime(choice: RuntimeChoice = "auto") -> Runtime:
    """The runtime of this choice; `auto` is ai-edge-litert, or else tflite-runtime."""
    kinds = tuple(_PACKAGES) if choice == "auto" else (choice,)
    reasons = []
    for kind in kinds:
        package, module_name = _PACKAGES[kind]
        try:
            module = importlib.import_module(module_name)
            version = importlib.metadata.version(package)
        except (ImportError, AttributeError) as error:
            reasons.append(f"{package} ({' '.join(str(error).split())})")
            continue
        if kind == "tflite" and int(np.__version__.split(".")[0]) >= 2:
            # It imports, and then fails in Interpreter() with a message that names neither.
            reasons.append(f"{package} {version} (needs NumPy 1, found {np.__version__})")
            continue
        return Runtime(kind, f"{package} {version}", module)
    install = " or ".join(_PACKAGES[kind][0] for kind in kinds)
    raise ModelError(f"no model runtime: {'; '.join(reasons)}: pip install {install}")


class Interpreter:
    """A model in a runtime, built once, owned by one thread."""

    def __init__(
        self, content: bytes, settings: ModelSettings, input_shape: tuple[int, ...] | None = None
    ) -> None:
        self.runtime = find_runtime(settings.runtime)
        self.delegates: tuple[str, ...] = ()
        self._content = content  # the runtime reads from these bytes for as long as it lives
        self._interpreter = self._build(settings, input_shape)
        self.inputs = tuple(_tensor_info(detail) for detail in self._interpreter.get_input_details())
        self.outputs = tuple(_tensor_info(detail) for detail in self._interpreter.get_output_details())

    def _build(self, settings: ModelSettings, input_shape: tuple[int, ...] | None) -> Any:
        if settings.delegates:
            try:
                loaded = [self._load_delegate(delegate) for delegate in settings.delegates]
                interpreter = self._interpreter_with(settings.threads, loaded, input_shape)
            except ModelError as error:
                if settings.on_delegate_failure == "refuse":
                    raise
                log.warning("%s; the model runs on the CPU", error)
            else:
                self.delegates = tuple(delegate.path for delegate in settings.delegates)
                return interpreter
        return self._interpreter_with(settings.threads, [], input_shape)

    def _load_delegate(self, delegate: DelegateSettings) -> Any:
        try:
            # The runtimes print a traceback from a destructor for a library that is missing or no delegate.
            library = ctypes.CDLL(delegate.path)
            missing = [symbol for symbol in _PLUGIN_SYMBOLS if not hasattr(library, symbol)]
            if missing:
                raise ModelError(
                    f"delegate {delegate.path}: no TensorFlow Lite delegate (lacks {missing[0]})"
                )
            return self.runtime.module.load_delegate(delegate.path, dict(delegate.options) or None)
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            raise ModelError(f"delegate {delegate.path}: {one_line(error)}") from error

    def _interpreter_with(
        self, threads: int, delegates: list[Any], input_shape: tuple[int, ...] | None
    ) -> Any:
        try:
            interpreter = self.runtime.module.Interpreter(
                model_content=self._content, num_threads=threads, experimental_delegates=delegates or None
            )
            if input_shape is not None:
                interpreter.resize_tensor_input(
                    interpreter.get_input_details()[0]["index"], list(input_shape)
                )
            for tensor in map(_tensor_info, interpreter.get_input_details()):
                if math.prod(max(1, side) for side in tensor.shape) > MAX_INPUT_VALUES:
                    raise ModelError(f"input {tensor}: too large for a mask model")
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError, TypeError, OSError, MemoryError) as error:
            raise ModelError(f"{self.runtime.name} refuses the model: {one_line(error)}") from error
        return interpreter

    def input_view(self, index: int) -> NDArray[Any]:
        """The memory of an input. A view that is alive during `invoke` makes it fail: use it and drop it."""
        view: NDArray[Any] = self._interpreter.tensor(self.inputs[index].index)()
        return view

    def output_view(self, index: int) -> NDArray[Any]:
        """The memory of an output, to be dropped before the next `invoke`."""
        view: NDArray[Any] = self._interpreter.tensor(self.outputs[index].index)()
        return view

    def invoke(self) -> None:
        """Run the model. The global interpreter lock is released meanwhile."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.runtime.name}: inference failed: {one_line(error)}") from error

    def operators(self) -> tuple[list[Operator], list[Operator]]:
        """The nodes of the model's own graph, and the delegates' nodes that run some of them instead."""
        # Both runtimes have it, neither documents it: only for showing, never for running.
        listing = getattr(self._interpreter, "_get_ops_details", None)
        if listing is None:
            return [], []
        shapes = {
            int(detail["index"]): tuple(int(side) for side in detail["shape"])
            for detail in self._interpreter.get_tensor_details()
        }
        nodes = []
        for detail in listing():
            inputs, outputs = (tuple(int(k) for k in detail[key]) for key in ("inputs", "outputs"))
            of_inputs, of_outputs = (tuple(shapes.get(k, ()) for k in ids) for ids in (inputs, outputs))
            nodes.append(Operator(str(detail["op_name"]), inputs, outputs, of_inputs, of_outputs))
        return [n for n in nodes if n.name != "DELEGATE"], [n for n in nodes if n.name == "DELEGATE"]


def one_line(error: BaseException) -> str:
    """An error of the runtime in one line; it speaks in several, and repeats itself."""
    lines = dict.fromkeys(line.strip() for line in str(error).splitlines())
    text = " ".join(line for line in lines if line)
    if len(text) > MAX_MESSAGE:
        text = text[: MAX_MESSAGE - 1] + "…"
    return text or type(error).__name__


def _tensor_info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        name=str(detail["name"]),
        index=int(detail["index"]),
        shape=tuple(int(side) for side in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )
