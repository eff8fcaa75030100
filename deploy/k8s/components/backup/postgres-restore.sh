#!/bin/sh
# Brings back what postgres-backup.sh saved, into an empty database, all or nothing: postgres-restore.sh FOLDER. Needs
# DATABASE_URL. Then run the migration of the release that is to serve it.
set -eu
folder=$1
# shellcheck source=patience.sh
. "$(dirname "$0")/patience.sh"
patience PostgreSQL postgres_answers
tables=$(psql --no-psqlrc --tuples-only --no-align --dbname="${DATABASE_URL:?}" \
  --command="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
if [ "$tables" != 0 ]; then
  echo "the database has $tables tables already: a restore goes into an empty one" >&2
  exit 1
fi
pg_restore --no-owner --exit-on-error --single-transaction --dbname="$DATABASE_URL" "$folder/postgres.dump"
echo 'postgres: done'
