#!/bin/sh
# Boots the guest and runs a script of this folder in it. Usage: tests/vm/run.sh [guest.sh]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=${1:-guest.sh}
cache=$("$here/prepare.sh")
log=$cache/$script.log
# Software emulation: a /dev/kvm inside of a virtual machine is often there and does not work. VM_ACCEL=kvm where it does.
accel=${VM_ACCEL:-tcg,thread=multi}
timeout "${VM_TIMEOUT_S:-600}" qemu-system-x86_64 \
    -accel "$accel" -cpu max -smp 2 -m 2048 -display none -vga none -no-reboot -nodefaults -serial stdio \
    -kernel "$cache/vmlinuz" -initrd "$cache/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests tsc=reliable no_timer_check guest_run=$here/$script guest_cache=$cache" \
    -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
    < /dev/null | tee "$log"
grep -q '^GUEST STATUS 0' "$log"
