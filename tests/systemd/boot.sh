#!/bin/sh
# Becomes a machine of its own: an overlay over this one's files, namespaces, and systemd as process 1.
# Run by tests/systemd/machine.py as
#   unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child=KILL boot.sh FOLDER CHECKOUT UNITS
# FOLDER is an empty directory for the overlay; CHECKOUT appears as /srv/edge-seg; UNITS is copied to
# /etc/systemd/system.
set -eu
folder=$1 checkout=$2 units=$3
root=$folder/root
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mkdir -p "$root/srv/edge-seg"
mount --bind "$checkout" "$root/srv/edge-seg"
mount -t proc proc "$root/proc"
# What is set there is the whole machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for each in dev run tmp; do
    mount -t tmpfs -o mode=755 tmpfs "$root/$each"
done
chmod 1777 "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for node in null,3 zero,5 full,7 random,8 urandom,9 kmsg,11; do
    mknod -m 666 "$root/dev/${node%,*}" c 1 "${node#*,}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mknod -m 600 "$root/dev/console" c 5 1

# Nothing of what this machine has installed is started: only what the target below names.
rm -rf "$root/etc/systemd/system" "$root"/lib/systemd/system/*.wants
mkdir -p "$root/etc/systemd/system" "$root/opt/edge-seg/bin" "$root/etc/edge-seg"
cp -R "$units/." "$root/etc/systemd/system/"
cat > "$root/etc/systemd/system/machine.target" <<TEXT
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
TEXT
# As multi-user.target wants it.
printf '[Unit]\nWants=edge-seg.service\n' > "$root/etc/systemd/system/boot.target"
for target in sysinit basic network shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' > "$root/etc/systemd/system/$target.target"
done
cat > "$root/opt/edge-seg/bin/edge-seg" <<'TEXT'
#!/bin/sh
PYTHONPATH=/srv/edge-seg exec /srv/edge-seg/.venv/bin/python -m edge_seg "$@"
TEXT
chmod 755 "$root/opt/edge-seg/bin/edge-seg"
systemd-sysusers --root="$root" "$checkout/systemd/edge-seg.sysusers"
rm -f "$root/etc/machine-id" && printf '0123456789abcdef0123456789abcdef\n' > "$root/etc/machine-id"
# Not chroot: in one, PrivateUsers= is refused.
mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
# Credentials are mounted by a process with a mount namespace of its own, and have to come back from there.
mount --make-rshared /
echo ready
exec env -i container=edge-seg-test "PATH=$PATH" /lib/systemd/systemd --unit=machine.target --log-target=journal --show-status=no
