#!/bin/sh
# Makes a Debian 13 userland with libcamera's Python bindings, picamera2 and what this package stands on. Cached (1.2 GB).
# Debian 12, which the tests otherwise run on, has no python3-libcamera. Usage: prepare-picamera2.sh CACHE
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
cd "${1:?the folder of prepare.sh}"
[ ! -d trixie ] || exit 0
command -v debootstrap > /dev/null || { echo "test-picamera2: sudo apt install debootstrap" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "test-picamera2: debootstrap needs root: sudo make test-picamera2" >&2; exit 1; }

rm -rf trixie.new
# shellcheck disable=SC2086  # without DEBIAN_MIRROR, debootstrap's own choice
debootstrap --variant=minbase --include=python3,python3-libcamera,libcamera-ipa,python3-prctl,kmod,udev \
    trixie trixie.new ${DEBIAN_MIRROR:-} >&2
# Wheels for its Python, fetched by ours. pidng, python-prctl and pykms have none: the second is Debian's, and the
# test puts dummies in the place of the others, which only raw pictures and previews need.
platforms=""
for glibc in 2_17 2_24 2_26 2_27 2_28 2_31 2_34; do platforms="$platforms --platform manylinux_${glibc}_x86_64"; done
fetch() {
    # shellcheck disable=SC2086  # one word an argument
    "$here/.venv/bin/python" -m pip install -q --disable-pip-version-check --no-warn-conflicts --ignore-installed \
        --target trixie.new/opt/python --python-version 3.13 --implementation cp --only-binary=:all: \
        $platforms --platform manylinux2014_x86_64 "$@" >&2
}
fetch 'numpy>=2' 'opencv-python-headless>=4.12' pyyaml 'pydantic>=2.6,<3' 'annotated-types>=0.6' \
    prometheus-client tqdm ai-edge-litert simplejpeg videodev2 av libarchive-c jsonschema piexif pillow openexr
fetch --no-deps picamera2==0.3.38
mv trixie.new trixie
