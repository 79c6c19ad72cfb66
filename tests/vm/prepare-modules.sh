#!/bin/sh
# Builds kernel modules that Debian's kernel does not come with, for the guest: vimc, libcamera's test camera (from
# Debian's kernel source), and v4l2loopback, the virtual webcam. Cached. Usage: prepare-modules.sh CACHE
set -eu
cd "${1:?the folder of prepare.sh}"
cache=$(pwd)
version=$(ls root/lib/modules)
modules=root/lib/modules/$version/extra
[ ! -d "$modules" ] || exit 0
command -v gcc > /dev/null && command -v make > /dev/null || { echo "test-vm: sudo apt install gcc make" >&2; exit 1; }

rm -rf build
mkdir build
cd build
series=$(echo "$version" | cut -d. -f1-2)
apt-get download "linux-headers-$version" "linux-headers-${version%-amd64}-common" "linux-kbuild-$series" \
    "linux-source-$series" v4l2loopback-dkms >&2
for package in *.deb; do dpkg -x "$package" .; done
rm -f ./*.deb
# Debian's headers refer to each other by where they would be installed.
headers=$cache/build/usr/src/linux-headers-$version
sed -i "s|/usr/src/|$cache/build/usr/src/|" "$headers/Makefile"
for tools in scripts tools; do
    for folder in "$headers" "$headers/../linux-headers-${version%-amd64}-common"; do
        [ ! -L "$folder/$tools" ] || ln -sfn "$cache/build/usr/lib/linux-kbuild-$series/$tools" "$folder/$tools"
    done
done
tar -xf usr/src/linux-source-*.tar.xz --wildcards --strip-components=1 '*/drivers/media/test-drivers/vimc/*'
make -s -C "$headers" "M=$cache/build/drivers/media/test-drivers/vimc" CONFIG_VIDEO_VIMC=m modules >&2
loopback=$(echo "$cache"/build/usr/src/v4l2loopback-*)
make -s -C "$headers" "M=$loopback" modules >&2
cd ..
mkdir "$modules.new"
cp build/drivers/media/test-drivers/vimc/vimc.ko "$loopback/v4l2loopback.ko" "$modules.new/"
mv "$modules.new" "$modules"
depmod -b root "$version"
rm -rf build
