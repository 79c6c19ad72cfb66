#!/bin/sh
# Puts the program where it will run from: the virtual environment below ROOT/opt/edge-seg, the command in ROOT/usr/bin
# (or BIN), units in ROOT/usr/lib/systemd/system (or UNITS), the user (or SYSUSERS), a first configuration and its reference. With ROOT empty
# that is this machine. Used by `make install` and `make deb`.
set -eu
cd "$(dirname "$0")/.."
root=${ROOT:-}
home=/opt/edge-seg
bin=${BIN:-/usr/bin}
units=${UNITS:-/usr/lib/systemd/system}

# A build leaves nothing in the checkout, which belongs to somebody else when root installs.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source" "$work/wheel"
cp -R pyproject.toml setup.py README.md LICENSE NOTICE edge_seg models config "$work/source"
find "$work/source" -name '*.so' -exec rm {} +

# Anew each time: what an older version needed, and this one does not, is gone.
rm -rf "$root$home.new"
mkdir -p "$root/opt"
/usr/bin/python3 -m venv --system-site-packages "$root$home.new"
python=$root$home.new/bin/python
"$python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work/wheel" "$work/source"
wheel=$(ls "$work"/wheel/edge_seg-*.whl)
# --ignore-installed: what this machine's distribution happens to have, another's may lack.
"$python" -m pip install -q --disable-pip-version-check --no-compile --no-warn-script-location --ignore-installed "$wheel"
# Scripts and settings name the folder that they were made in.
grep -rlIF "$root$home.new" "$root$home.new/bin" "$root$home.new/pyvenv.cfg" |
    xargs -r sed -i "s#$root$home\.new#$home#g"
# Two renames instead of a delete: a daemon that runs keeps its files until it is restarted.
rm -rf "$root$home.old"
[ ! -e "$root$home" ] || mv "$root$home" "$root$home.old"
mv "$root$home.new" "$root$home"
rm -rf "$root$home.old"

mkdir -p "$root$bin"
ln -sf "$home/bin/edge-seg" "$root$bin/edge-seg"
for unit in systemd/*.service; do
    install -D -m 644 "$unit" "$root$units/$(basename "$unit")"
done
install -D -m 644 systemd/edge-seg.sysusers "$root${SYSUSERS:-/usr/lib/sysusers.d}/edge-seg.conf"
[ -e "$root/etc/edge-seg/edge-seg.yaml" ] ||
    install -D -m 644 config/installed.yaml "$root/etc/edge-seg/edge-seg.yaml"
install -D -m 644 config/edge-seg.yaml "$root/usr/share/doc/edge-seg/edge-seg.yaml"
install -m 644 README.md LICENSE NOTICE "$root/usr/share/doc/edge-seg/"
