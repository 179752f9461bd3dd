#!/bin/sh
# Makes the database that POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD_FILE describe, and serves it.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/18/docker
as() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
if [ ! -e "$data/PG_VERSION" ]; then
  install -d -o postgres -g postgres "$(dirname "$data")" "$data"
  cp "$POSTGRES_PASSWORD_FILE" /tmp/password
  chown postgres /tmp/password
  as "$bin/initdb" -D "$data" -U "$POSTGRES_USER" --auth=scram-sha-256 --pwfile=/tmp/password --locale=C.UTF-8
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | as "$bin/postgres" --single -D "$data" postgres
fi
exec setpriv --reuid postgres --regid postgres --init-groups \
  "$bin/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
