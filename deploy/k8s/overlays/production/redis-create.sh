#!/bin/sh
# Makes the cluster out of empty nodes, once: redis-create.sh HOST... Leaves one that is there as it is.
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"
ask() { redis-cli -h "$@" 2>/dev/null; }

nodes=''
for host in "$@"; do
  tries=0
  until [ "$(ask "$host" PING)" = PONG ]; do
    tries=$((tries + 1))
    if [ "$tries" -ge 120 ]; then echo "$host does not answer" >&2; exit 1; fi
    sleep 1
  done
  nodes="$nodes $(getent hosts "$host" | cut -d ' ' -f 1):6379"
done

if ask "$1" CLUSTER INFO | grep -q '^cluster_slots_assigned:16384'; then
  echo 'the cluster is there'
  exit 0
fi
# shellcheck disable=SC2086 # one word for each node
redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
