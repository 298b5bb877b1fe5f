#!/usr/bin/env bash
# A real object store for the tests: Ceph's gateway over one monitor and one OSD, on the loopback of this machine.
#
#   ceph.sh install          Debian packages (root)
#   ceph.sh start FOLDER     all state in FOLDER; prints the environment that leads to it, also in FOLDER/environment
#   ceph.sh stop FOLDER      ends what FOLDER/run/*.pid name, and nothing else
set -euo pipefail

install_packages() {
  command -v ceph-mon >/dev/null && command -v ceph-osd >/dev/null && command -v radosgw >/dev/null && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ceph-mon ceph-osd radosgw ceph-common
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

running() { [[ -s $1 ]] && kill -0 "$(cat "$1")" 2>/dev/null; }

wait_for() { # SECONDS COMMAND...
  local tries=$(($1 * 2)); shift
  for _ in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done
  echo "not in time: $*" >&2; return 1
}

lay_out() {
  mkdir -p "$folder"/{mon,osd,gateway,log,run}
  free_port >"$folder/monitor_port"; free_port >"$folder/gateway_port"
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$(cat "$folder/monitor_port")]
public network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $folder/keyring
run dir = $folder/run
admin socket = $folder/run/\$name.asok
pid file = $folder/run/\$name.pid
log file = $folder/log/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
auth allow insecure global id reclaim = false
[mon]
mon data = $folder/mon
[osd]
osd data = $folder/osd
osd objectstore = bluestore
bluestore block create = true
bluestore block size = $((4 * 1024 ** 3))
osd memory target = 939524096
[client.rgw]
rgw data = $folder/gateway
rgw frontends = beast endpoint=127.0.0.1:$(cat "$folder/gateway_port")
CONF
  ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  ceph-authtool "$folder/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
  monmaptool --create --fsid "$(awk '/^fsid/ {print $3}' "$CEPH_CONF")" \
    --addv a "[v2:127.0.0.1:$(cat "$folder/monitor_port")]" "$folder/monmap" >/dev/null
  ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring"
}

start() {
  [[ -e $CEPH_CONF ]] || lay_out
  running "$folder/run/mon.a.pid" || ceph-mon -i a
  wait_for 30 timeout 5 ceph mon stat
  if [[ ! -e $folder/osd/ready ]]; then
    local uuid secret
    uuid=$(cat /proc/sys/kernel/random/uuid); secret=$(ceph-authtool --gen-print-key)
    echo "{\"cephx_secret\": \"$secret\"}" | timeout 30 ceph osd new "$uuid" -i - >/dev/null
    ceph-authtool "$folder/keyring" -n osd.0 --add-key "$secret" >/dev/null
    ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >/dev/null 2>&1
  fi
  running "$folder/run/osd.0.pid" || ceph-osd -i 0 >/dev/null 2>&1
  wait_for 40 bash -c "timeout 5 ceph osd stat | grep -q '1 up'"
  grep -q client.rgw "$folder/keyring" ||
    timeout 30 ceph auth get-or-create client.rgw mon 'allow rwx' osd 'allow rwx' >>"$folder/keyring"
  running "$folder/run/client.rgw.pid" || radosgw -n client.rgw
  local endpoint; endpoint=http://127.0.0.1:$(cat "$folder/gateway_port")
  wait_for 90 curl -fsS -o /dev/null "$endpoint/"
  timeout 60 radosgw-admin user info --uid=test >/dev/null 2>&1 || timeout 60 radosgw-admin user create \
    --uid=test --display-name=test --access-key=testkey --secret-key=testsecret >/dev/null
  printf '%s\n' "AWS_ENDPOINT_URL=$endpoint" AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret \
    AWS_DEFAULT_REGION=us-east-1 | tee "$folder/environment"
}

stop() {
  for name in client.rgw osd.0 mon.a; do
    local file=$folder/run/$name.pid
    if running "$file"; then
      local pid; pid=$(cat "$file"); kill "$pid"
      for _ in $(seq 80); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    fi
    rm -f "$file"
  done
}

folder=$(realpath -m "${2:-.}"); export CEPH_CONF=$folder/ceph.conf
case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
