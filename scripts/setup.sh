#!/bin/sh
# Installs what is missing: apt packages (with sudo when not root), the virtual environment, our package.
# A second run checks and installs nothing. Usage: scripts/setup.sh [demo|dev]
set -eu
cd "$(dirname "$0")/.."
kind=${1:-demo}

# The distribution's Python is the one that sees GStreamer's bindings and picamera2; another python3 may
# come first on PATH.
python=/usr/bin/python3

scripts/apt/install.sh scripts/apt/build.txt scripts/apt/run.txt

[ -x .venv/bin/python ] || "$python" -m venv --system-site-packages .venv

# The package is installed as a link to this checkout: only what is compiled or declared needs another install.
extras=""
[ "$kind" = dev ] && extras="[dev]"
stamp=.venv/installed-$kind
state=$(cat pyproject.toml setup.py edge_seg/*.c edge_seg/*.h | sha256sum)
# What is enough for development is enough for the demo.
if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ] && [ "$(cat .venv/installed-dev 2>/dev/null)" != "$state" ]; then
    echo "Installing Python packages into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extras"
    echo "$state" > "$stamp"
fi
