# In the clean chroot: see run.sh.
export DEBIAN_FRONTEND=noninteractive
say() { echo "== $*"; }
fail() { echo "test-deb: $*" >&2; exit 1; }
files() { find / -xdev \( -path /proc -o -path /dev -o -path /sys -o -path /tmp -o -path /root \) -prune -o -print | sort; }

apt-get update -qq
say "what the package needs"
dpkg-deb -f /edge-seg.deb Depends | tr ',' '\n' | sed 's/[|(].*//; s/ //g' > /tmp/needs
# shellcheck disable=SC2046
apt-get install -y -qq --no-install-recommends $(cat /tmp/needs) > /tmp/apt.log 2>&1 || { tail /tmp/apt.log; fail "apt refuses the dependencies"; }
files > /tmp/before

say "install"
apt-get install -y -qq --no-install-recommends /edge-seg.deb > /tmp/install.log 2>&1 || { tail /tmp/install.log; fail "apt refuses the package"; }
grep 'edge-seg probe' /tmp/install.log || fail "no word on what comes next"

say "use"
edge-seg --version
edge-seg check /etc/edge-seg/edge-seg.yaml > /dev/null
edge-seg probe > /tmp/probe.txt && sed -n 1,12p /tmp/probe.txt
cat > /tmp/demo.yaml <<'YAML'
source: {type: synthetic}
background: {type: colour, colour: '#00ff00'}
YAML
edge-seg snapshot /tmp/demo.yaml /tmp/look.png
test -s /tmp/look.png || fail "no picture"
for unit in edge-seg.service edge-seg@.service; do test -e "/usr/lib/systemd/system/$unit" || fail "no $unit"; done
getent passwd edge-seg > /dev/null || fail "no user edge-seg"
id -nG edge-seg | grep -qw video || fail "the user edge-seg may not open cameras"
for kernel in flow fusion matte blend; do
    /opt/edge-seg/bin/python -c "import edge_seg._$kernel" || fail "the compiled $kernel is missing"
done

say "a changed configuration survives an upgrade"
echo '# mine' >> /etc/edge-seg/edge-seg.yaml
apt-get install -y -qq --reinstall /edge-seg.deb > /tmp/upgrade.log 2>&1 || { tail /tmp/upgrade.log; fail "apt refuses the upgrade"; }
grep -q '^# mine' /etc/edge-seg/edge-seg.yaml || fail "the upgrade wrote over the configuration"

say "remove keeps the configuration, purge takes it"
apt-get remove -y -qq edge-seg > /dev/null 2>&1
test -e /etc/edge-seg/edge-seg.yaml || fail "remove took the configuration"
test ! -e /opt/edge-seg || fail "remove left $(find /opt/edge-seg | head -n 3)"
mkdir -p /var/lib/edge-seg /var/cache/edge-seg
apt-get purge -y -qq edge-seg > /tmp/purge.log 2>&1 || { tail /tmp/purge.log; fail "purge failed"; }
files > /tmp/after
comm -13 /tmp/before /tmp/after | grep -v -E '^/var/(lib/(dpkg|apt|systemd)|log|cache/(apt|debconf|ldconfig|fontconfig))|^/(edge-seg.deb|inside.sh)' > /tmp/left || true
! getent passwd edge-seg > /dev/null || fail "purge left the user edge-seg"
[ ! -s /tmp/left ] || { head /tmp/left; fail "purge left $(wc -l < /tmp/left) files"; }
say "installed, used, upgraded and purged without a trace"
