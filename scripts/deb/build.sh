#!/bin/sh
# `make deb`: a package for this machine's architecture and distribution, in build/. It carries the virtual
# environment ready made, so that installing needs no compiler and no network beyond apt's own.
set -eu
cd "$(dirname "$0")/../.."
scripts/apt/install.sh scripts/apt/build.txt scripts/apt/run.txt
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
architecture=$(dpkg --print-architecture)
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
root=build/deb/root
rm -rf build/deb
mkdir -p "$root/DEBIAN"
ROOT=$PWD/$root scripts/stage.sh

# apt upgrades the package, not pip.
site=$root/opt/edge-seg/lib/python$python/site-packages
rm -rf "$site"/pip "$site"/pip-* "$site"/setuptools "$site"/setuptools-* "$site"/pkg_resources "$site"/_distutils_hack \
    "$site"/distutils-precedence.pth "$root"/opt/edge-seg/bin/pip*
find "$root" -name __pycache__ -prune -exec rm -r {} +
# Modes and times that do not depend on who builds.
chmod -R u=rwX,go=rX "$root"
gzip -9n "$root/usr/share/doc/edge-seg/README.md"
cp LICENSE "$root/usr/share/doc/edge-seg/copyright"
rm "$root/usr/share/doc/edge-seg/LICENSE"

depends=$(sed 's/$/,/' scripts/apt/run.txt | tr '\n' ' ' | sed 's/, $//')
cat > "$root/DEBIAN/control" <<TEXT
Package: edge-seg
Version: $version
Architecture: $architecture
Section: video
Priority: optional
Maintainer: edge_seg maintainers <maintainers@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: libc6, libstdc++6, python3 (>= $python), python3 (<< $next), systemd | systemd-standalone-sysusers, adduser, $depends
Recommends: python3-picamera2
Description: person segmentation in live video, as a daemon
 Shows the person in front of a camera before another background, and never the
 room behind: takes frames from a camera, finds the person with an int8 TensorFlow
 Lite model, keeps the mask steady by coarse optical flow and serves the video over
 RTSP, to a display or to a file. One YAML file configures it.
TEXT
echo /etc/edge-seg/edge-seg.yaml > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "scripts/deb/$script" "$root/DEBIAN/$script"
done
dpkg-deb --build --root-owner-group -Zxz -z3 "$root" "build/edge-seg_${version}_$architecture.deb"
