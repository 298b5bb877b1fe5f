#!/bin/sh
# The image's entrypoint. Arguments are a command of regroup-dask: `run J42 -k 4 -o OUT`. Helm's chart `dask`, dask-gateway
# and the Dask operator start the same image with the name of a program first, in its older or its newer form.
set -eu
case "${1:-}" in
  dask-scheduler | "dask scheduler") shift; exec dask scheduler "$@" ;;
  dask-worker | "dask worker") shift; exec dask worker "$@" ;;
  dask | python | sh) exec "$@" ;;
esac
exec regroup-dask "$@"
