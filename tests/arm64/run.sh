#!/bin/sh
# `make test-arm64`: an arm64 board's Python with its wheels and our cross-compiled kernels, on this processor by
# qemu-user: the package is imported, the models infer and agree with this machine's masks, the kernels equal their
# references, the pure stages pass their unit tests.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
[ "$(uname -m)" != aarch64 ] || { echo "test-arm64: this machine is one: make test is the test" >&2; exit 1; }
cache=$("$here/prepare.sh")

# The kernels of this machine lie in the package's folder under the same names: a copy holds those of arm64.
source=$cache/source
rm -rf "$source"
mkdir -p "$source/config"
cp -R pyproject.toml setup.py edge_seg models tests "$source"
cp -R config/demo "$source/config/demo"
find "$source/edge_seg" -name '*.so' -exec rm {} +
cp "$cache"/kernels/edge_seg/*.so "$source/edge_seg/"
PYTHONPATH=. .venv/bin/python -m tests.arm64.masks write "$cache"

root=--map-root-user
[ "$(id -u)" != 0 ] || root=
# shellcheck disable=SC2086
exec unshare $root --mount sh -eu -s "$cache" "$source" "$here" <<'NAMESPACE'
cache=$1 here=$3
export PYTHONHOME="$cache/root/usr" PYTHONPATH="$cache/wheels:." PYTHONDONTWRITEBYTECODE=1 OPENBLAS_CORETYPE=ARMV8 OMP_NUM_THREADS=1
python=$(ls "$cache"/root/usr/bin/python3.[0-9]*[0-9])

# What the kernel would say of the processor: XNNPACK chooses its kernels by it, and without it is not used at all.
# The processors of qemu's `max` have extensions whose emulation in 7.2 makes LiteRT crash or compute nonsense.
mount -t tmpfs tmpfs /proc
mount -t tmpfs tmpfs /sys/devices/system/cpu
echo 0-3 > /sys/devices/system/cpu/possible
echo 0-3 > /sys/devices/system/cpu/present
board() {
    cpu=$1
    shift
    cp "$here/$cpu.cpuinfo" /proc/cpuinfo
    qemu-aarch64-static -cpu "$cpu" -L "$cache/root" "$python" "$@"
}

cd "$2"
began=$(date +%s)
for cpu in cortex-a72 cortex-a76; do
    echo "== $cpu"
    board $cpu -c 'import platform, edge_seg.engine, edge_seg.cli; print("imported on", platform.machine(), platform.python_version())'
    board $cpu -m tests.arm64.masks compare "$cache"
done
echo "== unit tests, after $(($(date +%s) - began)) s"
board cortex-a76 -m pytest -q -p no:cacheprovider -o timeout=0 tests/test_budget.py tests/test_carry.py \
    tests/test_colour.py tests/test_composite.py tests/test_flow.py tests/test_fusion.py tests/test_geometry.py \
    tests/test_kalman.py tests/test_matte.py tests/test_pacing.py tests/test_plate.py tests/test_pyramid.py tests/test_types.py
echo "== all of it took $(($(date +%s) - began)) s"
NAMESPACE
