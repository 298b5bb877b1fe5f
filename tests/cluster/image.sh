#!/usr/bin/env bash
# Builds the image of deploy/Dockerfile with buildah, without a registry and without a daemon (root, Debian).
#   image.sh install        apt packages
#   image.sh build          the image, on a base system from Debian's own packages that stands in for the one of FROM
#   image.sh run FOLDER ARGUMENTS...    regroup-dask with FOLDER as /data
#   image.sh id | size      the user it runs as; its megabytes without those of the base
#   image.sh remove         everything again
# All state is under $IMAGE_HOME. Nothing is pulled: where there is a registry, build the Dockerfile as it stands.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
IMAGE_HOME=${IMAGE_HOME:-$PWD/.image}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
dockerfile=$here/deploy/Dockerfile
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$dockerfile" | sort -u)

b() { buildah --root "$IMAGE_HOME/store" --runroot "$IMAGE_HOME/run" --storage-driver vfs "$@"; }

install_packages() {
  command -v buildah debootstrap >/dev/null && return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap
}

make_base() {
  if b inspect --type image "$base" >/dev/null 2>&1; then return 0; fi
  # the Debian release of the base image, with Debian's Python as `python`
  local release=${base##*-}
  debootstrap --variant=minbase --include=ca-certificates,python3-venv,python-is-python3 "$release" \
    "$IMAGE_HOME/base" "$MIRROR" >"$IMAGE_HOME/debootstrap.log"
  local container; container=$(b from scratch)
  b add -q "$container" "$IMAGE_HOME/base" / >/dev/null
  b commit -q "$container" "docker.io/library/$base" >/dev/null
  b rm "$container" >/dev/null
  rm -rf "$IMAGE_HOME/base"
}

build() {
  mkdir -p "$IMAGE_HOME"
  make_base
  # The certificates that this machine trusts are lent to the build and do not stay in the image.
  b bud --isolation chroot --pull-never --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --ignorefile "$dockerfile.dockerignore" -f "$dockerfile" -t regroup-dask "$here"
}

in_container() { # FOLDER COMMAND...
  local folder=$1; shift
  # one container for everything: making another copies the whole image
  b inspect regroup >/dev/null 2>&1 || b from --pull-never --name regroup localhost/regroup-dask >/dev/null
  b run --isolation chroot --volume "$folder:/data" regroup -- "$@"
}

case ${1:-} in
  install) install_packages ;;
  build)   build ;;
  run)     shift; folder=$1; shift; in_container "$folder" entrypoint "$@" ;;
  id)      in_container "${TMPDIR:-/tmp}" id -u ;;
  size)    in_container "${TMPDIR:-/tmp}" du -sm /opt/regroup | cut -f1 ;;
  remove)  b rm --all >/dev/null 2>&1 || true; b rmi --all --force >/dev/null 2>&1 || true; rm -rf "$IMAGE_HOME" ;;
  *) sed -n '2,9p' "$0"; exit 2 ;;
esac
