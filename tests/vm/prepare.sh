#!/bin/sh
# Fetches a kernel with test cameras and a busybox, and packs the first file system of the guest. Cached.
# Prints the cache's folder.
set -eu
cache=${EDGE_SEG_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-seg/vm}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$cache"
cd "$cache"

need() { command -v "$1" > /dev/null || { echo "test-vm: $1 is missing: sudo apt install $2" >&2; exit 1; }; }
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need depmod kmod

if [ ! -d root/lib/modules ]; then
    kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | head -n 1)
    apt-get download "$kernel" busybox-static >&2
    for package in *.deb; do dpkg -x "$package" root; done
    rm -f ./*.deb
    depmod -b root "$(ls root/lib/modules)"
fi
version=$(ls root/lib/modules)

rm -rf initramfs
mkdir -p initramfs/bin initramfs/modules
cp root/bin/busybox initramfs/bin/
cp "$here/init" initramfs/init
chmod +x initramfs/init
: > initramfs/modules/order
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d root -S "$version" --show-depends "$module" | while read -r kind path _; do
        [ "$kind" = insmod ] || continue
        name=$(basename "$path")
        grep -qx "$name" initramfs/modules/order && continue
        cp "$path" initramfs/modules/
        echo "$name" >> initramfs/modules/order
    done
done
(cd initramfs && find . | cpio -o -H newc --quiet | gzip -1) > initramfs.gz
cp "root/boot/vmlinuz-$version" vmlinuz

# GStreamer's list of its plugins: emulated, looking through them takes a minute or two. The guest has the same files.
GST_REGISTRY="$cache/registry.bin" "$here/../../.venv/bin/python" -c \
    'from edge_seg import gstreamer; gstreamer.load()' >&2
echo "$cache"
