"""What is said of broken models: the tables in docs/models.md, on the runtime that is installed.

PYTHONPATH=. python benchmarks/broken_models.py
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from edge_seg.errors import ModelError
from edge_seg.model_card import ModelCard, ModelSettings
from edge_seg.segmenter import open_segmenter
from tests.test_model_probe import BROKEN, SIZE


def main() -> None:
    logging.disable(logging.WARNING)
    print("| file | message |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        card = ModelCard(file=Path(folder) / "broken.tflite")
        for name, (content, _) in BROKEN.items():
            card.file.write_bytes(content)
            settings = replace(ModelSettings(threads=1), file=str(card.file), card=card)
            try:
                open_segmenter(settings, SIZE)
            except ModelError as error:
                print(f"| {name} | {str(error).replace(f'{folder}/', '')} |")
            else:
                raise SystemExit(f"{name}: not refused")


if __name__ == "__main__":
    main()
