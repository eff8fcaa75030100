#!/bin/sh
# Saves what session_svc keeps: redis-backup.sh FOLDER. One file for each primary, each of one moment: a session, whose keys
# all live in one primary, is whole in it. Needs REDIS_HOST, and REDIS_PORT and REDIS_PASSWORD where they are not the usual.
set -eu
folder=$1
host=${REDIS_HOST:?} port=${REDIS_PORT:-6379}
if [ -n "${REDIS_PASSWORD:-}" ]; then export REDISCLI_AUTH="$REDIS_PASSWORD"; fi
# shellcheck source=patience.sh
. "$(dirname "$0")/patience.sh"
patience "Redis at $host:$port" redis_answers
ask() { redis-cli -h "$host" -p "$port" "$@" | tr -d '\r'; }

if [ "$(ask INFO cluster | sed -n 's/^cluster_enabled://p')" = 1 ]; then
  if ! ask CLUSTER INFO | grep -q '^cluster_slots_ok:16384$'; then
    echo 'not every slot of the cluster is served, so a backup would not have all sessions' >&2
    exit 1
  fi
  primaries=$(ask CLUSTER NODES | awk '$3 ~ /master/ && $3 !~ /fail/ && NF > 8 { sub(/@.*/, "", $2); print $2 }')
else
  primaries="$host:$port"
fi

mkdir -p "$folder"
number=0
for primary in $primaries; do
  number=$((number + 1))
  file="$folder/redis-$number.rdb"
  redis-cli -h "${primary%:*}" -p "${primary##*:}" --rdb "$file.part" >/dev/null
  mv "$file.part" "$file"
done
echo "redis: $number primaries"
