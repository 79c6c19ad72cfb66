#!/bin/sh
# The model tests with tflite-runtime, the only runtime on armv7l: it ends with Python 3.11 and NumPy 1.
set -eu
cd "$(dirname "$0")/.."
venv=build/tflite-venv
if [ ! -e $venv/installed ]; then
    /usr/bin/python3 -m venv $venv
    $venv/bin/pip install -q --disable-pip-version-check "numpy<2" "tflite-runtime==2.14.0" \
        "opencv-python-headless<4.12" pyyaml pydantic flatbuffers pytest pytest-timeout hypothesis
    touch $venv/installed
fi
PYTHONPATH=. exec $venv/bin/python -m pytest tests/test_gil.py tests/test_model_card.py tests/test_model_probe.py \
    tests/test_model_tools.py tests/test_runtime.py tests/test_segmenter.py
