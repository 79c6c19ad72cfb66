#!/bin/sh
# Installs with apt what is missing of the packages listed in the files given (one name a line), with sudo when not root.
# Usage: scripts/apt/install.sh scripts/apt/run.txt ...
set -eu

missing=""
for package in $(cat "$@"); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing apt packages:$missing"
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
wait_for_lock="-o DPkg::Lock::Timeout=300"
# shellcheck disable=SC2086  # one word a package
$sudo apt-get $wait_for_lock update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get $wait_for_lock install -y -qq --no-install-recommends $missing
