"""What is in a model file, and what it costs here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import ModelError
from edge_seg.model_card import ModelCard, ModelSettings, load_card, read_model
from edge_seg.model_probe import probe
from edge_seg.runtime import Interpreter, Operator

RUNS = 30


@dataclass(frozen=True)
class ModelInfo:
    """What `model info` prints."""

    file: str
    size_bytes: int
    card: ModelCard | None
    runtime: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    partitions: int
    """Delegate nodes in the graph; one for a model that XNNPACK takes whole, none where it takes nothing."""
    left_to_runtime: int
    """Operators outside of every delegate."""
    macs: int
    invoke_ms: dict[int, float]
    """Median per number of threads."""

    def as_dict(self) -> dict[str, Any]:
        card = None if self.card is None else self.card.name
        return {**self.__dict__, "card": card, "invoke_ms": {str(k): v for k, v in self.invoke_ms.items()}}

    def as_text(self) -> str:
        lines = [f"{self.file} ({self.size_bytes / 1000:.0f} kB), on {self.runtime}"]
        if self.card is not None:
            lines += _card_lines(self.card)
        else:
            lines.append("card       none beside it: the daemon needs one to use it")
        lines += [f"input      {text}" for text in self.inputs]
        lines += [f"output     {text}" for text in self.outputs]
        lines.append("operators  " + ", ".join(f"{count} {name}" for name, count in self.operators.items()))
        lines.append(
            f"partitions {self.partitions} on delegates, {self.left_to_runtime} operators beside them"
        )
        lines.append(f"MACs       {self.macs / 1e6:.1f} million")
        timing = ", ".join(
            f"{ms:.2f} ms with {threads} thread{'s' if threads > 1 else ''}"
            for threads, ms in self.invoke_ms.items()
        )
        return "\n".join([*lines, f"invoke     {timing} (median of {RUNS})"])


def info(path: Path, settings: ModelSettings | None = None, threads: Sequence[int] = (1, 2)) -> ModelInfo:
    """Look at the model at `path`, with or without a card beside it, and time it on noise."""
    settings = settings or ModelSettings()
    path = path.resolve()
    beside = path.with_suffix(".yaml")
    card = replace(load_card(beside), file=path) if beside.is_file() else None
    bare = card or ModelCard(name=path.stem, file=path)
    content = read_model(bare)
    if card is not None:
        settings = probe(card, settings, (256, 256))
    shape = None if bare.input.size is None else (1, bare.input.size[1], bare.input.size[0], 3)
    timings: dict[int, float] = {}
    interpreter: Interpreter | None = None
    for count in threads:
        interpreter = Interpreter(content, replace(settings, threads=count), shape)
        timings[count] = _median_ms(interpreter)
    if interpreter is None:
        raise ModelError("no number of threads to time the model with")
    operators, delegates = interpreter.operators()
    covered = _covered(operators, delegates)
    return ModelInfo(
        file=str(path),
        size_bytes=len(content),
        card=card,
        runtime=interpreter.runtime.name,
        inputs=tuple(f"{t}, {_quantisation(t.scale, t.zero_point)}" for t in interpreter.inputs),
        outputs=tuple(f"{t}, {_quantisation(t.scale, t.zero_point)}" for t in interpreter.outputs),
        operators=dict(Counter(op.name for op in operators).most_common()),
        partitions=len(delegates),
        left_to_runtime=len(operators) - len(covered),
        macs=sum(_macs(op) for op in operators),
        invoke_ms={count: round(ms, 3) for count, ms in timings.items()},
    )


def _card_lines(card: ModelCard) -> list[str]:
    taken, given = card.input, card.output
    lines = [
        f"card       {card.name}, sha256 {card.sha256[:16] or 'not given'}",
        f"           input {taken.channels}, (code - {list(taken.mean)}) / {list(taken.std)}, "
        + ("letterboxed" if taken.letterbox else "stretched"),
        f"           output {given.meaning}, person is {given.person} of {given.channels} channels",
    ]
    for label, text in (("for", card.intended), ("limits", card.limits), ("licence", card.licence)):
        lines += [f"           {label}: {text}"] if text else []
    return lines + [f"           measured: {text}" for text in card.measured]


def _quantisation(scale: float, zero_point: int) -> str:
    return f"scale {scale:.6g}, zero point {zero_point}" if scale else "not quantised"


def _median_ms(interpreter: Interpreter) -> float:
    noise = np.random.default_rng(0)
    view = interpreter.input_view(0)
    view[...] = (noise.random(view.shape) * (1 if view.dtype.kind == "f" else 127)).astype(view.dtype)
    del view
    times = []
    for _ in range(RUNS + 3):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:])) * 1000


def _covered(operators: Sequence[Operator], delegates: Sequence[Operator]) -> set[int]:
    """The operators that run inside a delegate: those between its outputs and its inputs."""
    maker = {tensor: k for k, op in enumerate(operators) for tensor in op.outputs}
    found: set[int] = set()
    for delegate in delegates:
        edge = set(delegate.inputs)
        todo = list(delegate.outputs)
        while todo:
            tensor = todo.pop()
            k = maker.get(tensor)
            if k is None or k in found:
                continue
            found.add(k)
            todo += [source for source in operators[k].inputs if source not in edge]
    return found


def _macs(op: Operator) -> int:
    """Multiply-accumulates of the operators that consist of them; the others are not counted."""
    if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        weights, out = op.input_shapes[1], op.output_shapes[0]
        per_value = weights[1] * weights[2] * (weights[3] if op.name == "CONV_2D" else 1)
        return int(np.prod(out)) * per_value
    if op.name == "TRANSPOSE_CONV":
        weights, taken = op.input_shapes[1], op.input_shapes[2]
        return int(np.prod(taken)) * weights[0] * weights[1] * weights[2]
    if op.name == "FULLY_CONNECTED":
        return int(np.prod(op.output_shapes[0])) * op.input_shapes[1][-1]
    return 0
