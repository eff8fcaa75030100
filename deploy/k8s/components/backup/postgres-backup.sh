#!/bin/sh
# Saves what config_svc keeps: postgres-backup.sh FOLDER. Needs DATABASE_URL, as libpq takes it. Goes after Redis' backup:
# so every agent that a saved session belongs to is in it.
set -eu
folder=$1
# shellcheck source=patience.sh
. "$(dirname "$0")/patience.sh"
patience PostgreSQL postgres_answers
mkdir -p "$folder"
pg_dump --format=custom --no-owner --file="$folder/postgres.dump.part" "${DATABASE_URL:?}"
mv "$folder/postgres.dump.part" "$folder/postgres.dump"
echo 'postgres: done'
