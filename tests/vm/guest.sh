#!/bin/sh
# In the guest: loads the test camera's module and runs the test proper.
cd "$(dirname "$0")/../.." || exit 1
export HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin GST_REGISTRY=/tmp/registry.bin OMP_NUM_THREADS=2
cache=$(sed -n 's/.*guest_cache=\([^ ]*\).*/\1/p' /proc/cmdline)
ip link set lo up 2>/dev/null || ifconfig lo up
modprobe -d "$cache/root" vivid n_devs=1 node_types=0x1 || exit 1
exec .venv/bin/python -m tests.vm.guest_v4l2
