#!/bin/sh
# The images that docker/Dockerfile builds upon, made here from Debian's packages and the npm registry's Node, for a
# machine that reaches no registry of images: localhost/debian (as debian:bookworm-slim), localhost/node (as
# node:24.21.0-bookworm-slim) and localhost/python (Debian again). Needs root, buildah and debootstrap; takes two minutes.
set -eu
cd "$(dirname "$0")/.."
work=${WORK:-/var/tmp/fewloop-images}
root=$work/rootfs
mkdir -p "$work"

if [ ! -e "$root/etc/debian_version" ]; then
  debootstrap --variant=minbase bookworm "$root" http://deb.debian.org/debian > "$work/debootstrap.log"
  # What the slim images leave out as well; copyright files stay.
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  rm -rf "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/info/* "$root"/var/cache/apt/* \
    "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
fi

debian=$(buildah from scratch)
buildah add -q "$debian" "$root" / > "$work/added"
buildah config --cmd /bin/bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$debian"
buildah commit -q --rm "$debian" localhost/debian:bookworm-slim > "$work/committed"

# Where TLS is checked against a certificate of the network's own (SSL_CERT_FILE), what installs packages has to trust
# it too; the images that are run know nothing of it.
trust() {
  if [ -z "${SSL_CERT_FILE:-}" ]; then return; fi
  buildah add -q "$1" "$SSL_CERT_FILE" /etc/ssl/network.pem > "$work/added"
  buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/network.pem --env PIP_CERT=/etc/ssl/network.pem "$1"
}

# The Node that package.json pins, and the npm of this machine.
node=$(buildah from localhost/debian:bookworm-slim)
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
buildah add -q "$node" "$(readlink -f node_modules/node/bin/node)" /usr/local/bin/node > "$work/added"
buildah add -q "$node" "$npm" /usr/local/lib/node_modules/npm > "$work/added"
buildah run --isolation chroot "$node" -- ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
trust "$node"
buildah commit -q --rm "$node" "localhost/node:24-bookworm-slim" > "$work/committed"

python=$(buildah from localhost/debian:bookworm-slim)
trust "$python"
buildah commit -q --rm "$python" "localhost/python:bookworm-slim" > "$work/committed"
buildah images
