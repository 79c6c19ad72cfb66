#!/bin/sh
# Makes what an arm64 board has, in a folder: Debian's Python and C libraries, our dependencies' arm64 wheels, and the
# native extensions, cross-compiled. Nothing of it is installed on this machine. Cached; prints the folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cache=${EDGE_SEG_ARM64_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-seg/arm64}
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

need() { command -v "$1" > /dev/null || { echo "test-arm64: $1 is missing: sudo apt install $2" >&2; exit 1; }; }
need qemu-aarch64-static qemu-user-static
need aarch64-linux-gnu-gcc "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"

if [ ! -e "$cache/debs-$python" ]; then
    rm -rf "$cache/root" "$cache/apt"
    mkdir -p "$cache/root" "$cache/apt/state/lists/partial" "$cache/apt/cache/archives/partial"
    # An apt of its own, so that this machine's does not learn of a foreign architecture.
    arm64_apt() {
        apt-get -qq -o APT::Sandbox::User=root -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::Etc::parts=/dev/null \
            -o Dir::State="$cache/apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$cache/apt/cache" "$@" >&2
    }
    arm64_apt update || true  # a third party's archive may have nothing for arm64
    arm64_apt install -y --download-only --no-install-recommends "python$python" "libpython$python-dev" libstdc++6
    for package in "$cache"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$cache/root"; done
    rm -rf "$cache/apt"
    touch "$cache/debs-$python"
fi

wheels=$(cat pyproject.toml "$0" | sha256sum | cut -c 1-16)
if [ ! -e "$cache/wheels-$wheels" ]; then
    rm -rf "$cache/wheels" "$cache"/wheels-*
    # shellcheck disable=SC2046  # one requirement a line
    .venv/bin/python "$here/requirements.py" |
        .venv/bin/python -m pip install -q --disable-pip-version-check --target "$cache/wheels" \
            --python-version "$python" --implementation cp --only-binary=:all: \
            --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 \
            --platform manylinux_2_28_aarch64 --platform manylinux_2_31_aarch64 \
            -r /dev/stdin >&2
    touch "$cache/wheels-$wheels"
fi

# The linker says of each of this machine's libraries that it does not fit; what matters is whether it ends well.
CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" CFLAGS="-isystem $cache/root/usr/include" \
    .venv/bin/python setup.py -q build_ext --force --build-lib "$cache/kernels" --build-temp "$cache/objects" \
    > "$cache/kernels.log" 2>&1 || { cat "$cache/kernels.log" >&2; exit 1; }
echo "$cache"
