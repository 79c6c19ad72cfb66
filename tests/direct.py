"""Outputs without threads: for tests that compare a picture with what the engine says about itself."""

from collections.abc import Sequence

from edge_seg.outputs import Applied, OutputStatus
from edge_seg.sinks import OutputSettings
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420


class DirectOutputs:
    """Calls one sink within the frame loop."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._is_open = False
        self.applied: list[Sequence[OutputSettings]] = []

    def reformat(self, output: OutputFormat) -> None:
        if self._is_open:
            self._sink.reformat(output)
        else:
            self._sink.open(output)
        self._is_open = True

    def push(self, picture: I420, captured_ns: int) -> None:
        self._sink.push(picture, captured_ns)

    def apply(self, outputs: Sequence[OutputSettings]) -> Applied:
        self.applied.append(outputs)
        return Applied((), (), (), ())

    def tick(self) -> None:
        pass

    def status(self) -> list[OutputStatus]:
        return []

    def close(self) -> None:
        self._sink.close()
