#!/bin/sh
# Boots the guest and runs one of its tests. Usage: tests/vm/run.sh v4l2|hdmi|loopback|picamera2 [more arguments for QEMU]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
test=${1:?which test?}
shift
cache=$("$here/prepare.sh")
case $test in picamera2 | loopback) "$here/prepare-modules.sh" "$cache" ;; esac
[ "$test" != picamera2 ] || "$here/prepare-picamera2.sh" "$cache"
log=$cache/$test.log
# Software emulation: a /dev/kvm inside of a virtual machine is often there and does not work. VM_ACCEL=kvm where it does.
accel=${VM_ACCEL:-tcg,thread=multi}
[ -n "${VM_STDIN:-}" ] || exec < /dev/null  # else the guest's console would be the terminal
# The clock is the HPET: the kernel measures its time stamp counter wrongly on a host that is busy, and its seconds
# are then no seconds.
timeout "${VM_TIMEOUT_S:-900}" qemu-system-x86_64 \
    -accel "$accel" -cpu max -smp 2 -m 2048 -display none -vga none -no-reboot -nodefaults -serial stdio \
    -kernel "$cache/vmlinuz" -initrd "$cache/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests clocksource=hpet no_timer_check guest_run=$here/guest.sh guest_test=$test guest_cache=$cache" \
    -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap "$@" | tee "$log"
grep -q '^GUEST STATUS 0' "$log"
