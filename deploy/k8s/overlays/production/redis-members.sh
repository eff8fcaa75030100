#!/bin/sh
# Beside each node: introduces it to the others at their current addresses. A pod comes back with another one, which the others learn from
# it; but when all come back at once nobody knows anybody. redis-members.sh HOST...
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"
trap 'exit 0' TERM INT

while true; do
  known=$(redis-cli CLUSTER INFO 2>/dev/null | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
  # One that knows itself only belongs to no cluster yet: making it is redis-create's.
  if [ "${known:-1}" -gt 1 ]; then
    for host in "$@"; do
      address=$(getent hosts "$host" | cut -d ' ' -f 1) || continue
      redis-cli CLUSTER MEET "$address" 6379 >/dev/null 2>&1 || true
    done
  fi
  sleep "${MEET_SECONDS:-15}" &
  wait $!
done
