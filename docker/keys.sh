#!/bin/sh
# Makes the secrets of compose.yaml where there are none yet. They stay in volumes that only their readers mount.
# It runs as a root that may hand files over (CAP_CHOWN) and nothing else, so what is handed over is not touched again.
set -eu
umask 077
cd /run/fewloop

secret() { node -p 'require("node:crypto").randomBytes(32).toString("base64url")'; }

# Standard input becomes the file, which is there whole or not at all; 10001 is the user of Fewloop's images.
keep() {
  cat > "$1.new"
  chown 10001:10001 "$1.new"
  mv "$1.new" "$1"
}

if [ ! -e admin/key ]; then secret | keep admin/key; fi
if [ ! -e database/url ]; then
  password=$(secret)
  echo "$password" | keep database/password
  echo "postgres://fewloop:$password@postgres:5432/fewloop" | keep database/url
fi
chown 10001:10001 prometheus
