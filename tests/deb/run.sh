#!/bin/sh
# `make test-deb`: installs the built package in a clean chroot, uses it, upgrades and purges it, and looks for what was
# left behind. Needs root, debootstrap and the distribution's archive; some minutes, the chroot is cached.
set -eu
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "test-deb: a chroot needs root" >&2; exit 1; }
command -v debootstrap > /dev/null || { echo "test-deb: debootstrap is missing: sudo apt install debootstrap" >&2; exit 1; }
package=$(ls build/edge-seg_*_"$(dpkg --print-architecture)".deb) || { echo "test-deb: make deb first" >&2; exit 1; }

cache=${EDGE_SEG_CHROOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-seg/chroot}
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=$cache/$suite
if [ ! -e "$base/etc/debian_version" ]; then
    rm -rf "$base.new"
    mkdir -p "$cache"
    debootstrap --variant=minbase "$suite" "$base.new"
    mv "$base.new" "$base"
fi

# Everything on top of the cached chroot is in memory and gone with this namespace.
exec unshare --mount sh -eu -s "$base" "$package" "$PWD/tests/deb/inside.sh" <<'NAMESPACE'
base=$1 package=$2 inside=$3
top=$(mktemp -d)
mount -t tmpfs tmpfs "$top"
mkdir "$top/changes" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=$base,upperdir=$top/changes,workdir=$top/work" overlay "$top/root"
mount -t proc proc "$top/root/proc"
mount --rbind /dev "$top/root/dev"
cp "$package" "$top/root/edge-seg.deb"
cp "$inside" "$top/root/inside.sh"
cp /etc/resolv.conf "$top/root/etc/resolv.conf"
exec chroot "$top/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 sh -eu /inside.sh
NAMESPACE
