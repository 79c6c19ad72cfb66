#!/bin/sh
# In the guest: loads the modules of the test that was asked for, and runs it.
cd "$(dirname "$0")/../.." || exit 1
export HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin GST_REGISTRY=/tmp/registry.bin OMP_NUM_THREADS=2
argument() { sed -n "s/.*guest_$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
cache=$(argument cache)
cp "$cache/registry.bin" "$GST_REGISTRY"
ip link set lo up 2>/dev/null || ifconfig lo up
load() { modprobe -d "$cache/root" "$@" || exit 1; }

case $(argument test) in
v4l2)
    load vivid n_devs=1 node_types=0x1
    exec .venv/bin/python -m tests.vm.guest_v4l2
    ;;
hdmi)
    load virtio-gpu
    exec .venv/bin/python -m tests.vm.guest_hdmi
    ;;
loopback)
    load vivid n_devs=1 node_types=0x1
    load v4l2loopback video_nr=10 card_label=edge-seg exclusive_caps=1
    exec .venv/bin/python -m tests.vm.guest_loopback
    ;;
picamera2)
    # libcamera's bindings are in Debian 13 only: its userland, with this checkout in it at the same place.
    load vimc
    new=$cache/trixie
    here=$(pwd)
    mkdir -p "$new$here"
    for folder in "$here" /proc /sys /dev /tmp /run; do mount --bind "$folder" "$new$folder" || exit 1; done
    chroot "$new" /usr/lib/systemd/systemd-udevd --daemon
    chroot "$new" env SYSTEMD_IGNORE_CHROOT=1 sh -c 'udevadm trigger && udevadm settle'
    exec chroot "$new" sh -c "cd $here && PYTHONPATH=/opt/python python3 -m tests.vm.guest_picamera2"
    ;;
*)
    echo "no such test"
    exit 1
    ;;
esac
