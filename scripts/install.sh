#!/bin/sh
# `sudo make install`: the daemon in /opt/edge-seg, its units, /etc/edge-seg/edge-seg.yaml. Again: an upgrade.
# `sudo make uninstall` (this script with --remove) takes all but the configuration away.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "This writes to /opt and /etc: run it as root (sudo make ${1:+un}install)." >&2; exit 1; }
# Where an administrator's own programs and units belong; the distribution's places are the package's.
BIN=/usr/local/bin
UNITS=/usr/local/lib/systemd/system
SYSUSERS=/etc/sysusers.d
export BIN UNITS SYSUSERS
has_systemd() { [ -d /run/systemd/system ]; }

if [ "${1:-}" = --remove ]; then
    has_systemd && systemctl disable --now edge-seg.service 'edge-seg@*.service' || true
    rm -f "$UNITS/edge-seg.service" "$UNITS/edge-seg@.service" "$SYSUSERS/edge-seg.conf" "$BIN/edge-seg"
    rm -rf /opt/edge-seg /usr/share/doc/edge-seg
    has_systemd && systemctl daemon-reload
    echo "Removed. The configuration in /etc/edge-seg, what is in /var/lib/edge-seg, and the user edge-seg are still there."
    exit 0
fi

[ ! -e /var/lib/dpkg/info/edge-seg.list ] || {
    echo "The package edge-seg is installed: upgrade that, or remove it first (apt remove edge-seg)." >&2
    exit 1
}
scripts/apt/install.sh scripts/apt/build.txt scripts/apt/run.txt
scripts/stage.sh
systemd-sysusers "$SYSUSERS/edge-seg.conf"
if has_systemd; then
    systemctl daemon-reload
    systemctl --no-block try-restart edge-seg.service 'edge-seg@*.service'
fi
cat <<TEXT

Installed. Next:
  edge-seg probe                        what cameras, encoders and displays there are
  sudoedit /etc/edge-seg/edge-seg.yaml  what the service does
  systemctl enable --now --no-block edge-seg   start it, now and at every boot

TEXT
