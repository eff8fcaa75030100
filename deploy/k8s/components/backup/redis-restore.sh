#!/bin/sh
# Brings back what redis-backup.sh saved, into an empty Redis or cluster of whatever shape: redis-restore.sh FOLDER.
# Needs REDIS_HOST as the backup does; a single Redis also has to reach this machine, as RESTORE_HOST. The services must
# be stopped. Sessions keep the time at which they expire, so what has expired since stays gone.
set -eu
folder=$1
host=${REDIS_HOST:?} port=${REDIS_PORT:-6379} here=${RESTORE_HOST:-127.0.0.1} scratch_port=${RESTORE_PORT:-7399}
password=${REDIS_PASSWORD:-}
if [ -n "$password" ]; then export REDISCLI_AUTH="$password"; fi
# shellcheck source=patience.sh
. "$(dirname "$0")/patience.sh"
patience "Redis at $host:$port" redis_answers
ask() { redis-cli -h "$host" -p "$port" "$@" | tr -d '\r'; }
saved() { redis-cli -p "$scratch_port" "$@" | tr -d '\r'; }

stop() { redis-cli -p "$scratch_port" SHUTDOWN NOSAVE >/dev/null 2>&1 || true; rm -rf "$scratch"; }
scratch=$(mktemp -d)
trap stop EXIT

# A server that holds the saved keys for as long as it takes to hand them on.
serve() {
  cp "$1" "$scratch/dump.rdb"
  redis-server --port "$scratch_port" --dir "$scratch" --save '' --appendonly no --protected-mode no --repl-diskless-sync-delay 0 \
    ${password:+--requirepass "$password"} >"$scratch/log" 2>&1 &
  tries=0
  until [ "$(saved PING 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then cat "$scratch/log" >&2; exit 1; fi
    sleep 0.1
  done
}

into_cluster() {
  redis-cli --cluster import "$host:$port" --cluster-from "127.0.0.1:$scratch_port" --cluster-copy \
    ${password:+--cluster-from-pass "$password"} >"$scratch/import" 2>&1 || { tail -5 "$scratch/import" >&2; exit 1; }
}

into_one() {
  if [ -n "$password" ]; then ask CONFIG SET masterauth "$password" >/dev/null; fi
  ask REPLICAOF "$here" "$scratch_port" >/dev/null
  tries=0
  until ask INFO replication | grep -q '^master_link_status:up'; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then ask REPLICAOF NO ONE >/dev/null; echo "$host can't reach $here:$scratch_port" >&2; exit 1; fi
    sleep 0.1
  done
  ask REPLICAOF NO ONE >/dev/null
}

if [ "$(ask INFO cluster | sed -n 's/^cluster_enabled://p')" = 1 ]; then
  nodes=$(ask CLUSTER NODES | awk '$3 ~ /master/ && $3 !~ /fail/ && NF > 8 { sub(/@.*/, "", $2); print $2 }')
  into=into_cluster
else
  nodes="$host:$port"
  into=into_one
fi
keys() { for node in $nodes; do redis-cli -h "${node%:*}" -p "${node##*:}" DBSIZE; done | awk '{ all += $NF } END { print all }'; }

if [ "$(keys)" != 0 ]; then
  echo "$host holds $(keys) keys already: a restore goes into an empty one" >&2
  exit 1
fi
if [ "$into" = into_one ] && [ -e "$folder/redis-2.rdb" ]; then
  echo 'this was a cluster: a single Redis takes one file only' >&2
  exit 1
fi
total=0
for file in "$folder"/redis-*.rdb; do
  serve "$file"
  total=$((total + $(saved DBSIZE)))
  $into
  redis-cli -p "$scratch_port" SHUTDOWN NOSAVE >/dev/null 2>&1 || true
  wait
done
echo "redis: $(keys) keys of $total"
