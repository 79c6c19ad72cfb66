#!/bin/sh
# Runs the daemon on the bundled clip, or on the first camera with DEMO_SOURCE=camera.
# DEMO_SECONDS=20 ends it by itself.
set -eu
cd "$(dirname "$0")/.."

config=config/demo.yaml
if [ "${DEMO_SOURCE:-clip}" = camera ]; then
    if ls /dev/video* >/dev/null 2>&1; then
        config=config/demo-camera.yaml
    else
        echo "No camera is plugged in (no /dev/video*): showing the bundled clip."
    fi
fi

cat <<TEXT

  Watch it:   rtsp://127.0.0.1:8554/live

    ffplay -fflags nobuffer -flags low_delay rtsp://127.0.0.1:8554/live
    vlc --network-caching=100 rtsp://127.0.0.1:8554/live     (not Debian's build, which has no RTSP)

  Look at it: http://127.0.0.1:9108/ (preview, figures, controls)

  It runs until Ctrl-C${DEMO_SECONDS:+, or for $DEMO_SECONDS seconds}. The configuration is $config.

TEXT
exec .venv/bin/edge-seg run "$config" --seconds "${DEMO_SECONDS:-0}"
