#!/bin/bash
# Builds the images without a registry and tries them: one container with everything embedded, then compose.yaml, with
# stand-ins for the images of others, from `docker compose up` through a training run to a clean end. What it does is
# said in docs/operations/docker.md. Needs root, Debian 12, network to Debian, npm and PyPI, 40 GB, and
#   apt-get install buildah debootstrap podman runc iptables netavark aardvark-dns jq
# the docker command with its compose plugin, node_modules (npm ci) and the jars of `npm run kafka`.
#   docker/prove.sh [bases] [build] [embedded] [compose]     those steps alone; else all
set -euo pipefail
cd "$(dirname "$0")/.."
work=${WORK:-/var/tmp/fewloop-images}
mkdir -p "$work"
export FEWLOOP_PORT=${FEWLOOP_PORT:-3900} KAFKA_PORT=${KAFKA_PORT:-9993} PROMETHEUS_PORT=${PROMETHEUS_PORT:-9990}
# Podman beside no systemd and without CAP_SYS_RESOURCE: no timers for health checks, limits that are below its own.
printf '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n' > "$work/containers.conf"
export CONTAINERS_CONF=$work/containers.conf DISABLE_HC_SYSTEMD=true

fail() { echo "FAILED: $*" >&2; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; echo "$1: $2"; }
since() { echo "$(($(date +%s) - $1)) s"; }

build() { # TARGET IMAGE
  local began
  began=$(date +%s)
  buildah build --isolation chroot --network host --format docker --layers \
    --build-arg NODE_IMAGE=localhost/node:24-bookworm-slim --build-arg RUNTIME_IMAGE=localhost/debian:bookworm-slim \
    --build-arg PYTHON_IMAGE=localhost/python:bookworm-slim --build-arg REVISION="$(git rev-parse HEAD)" \
    -f docker/Dockerfile --target "$1" -t "$2" . > "$work/build-$1.log" 2>&1 || { tail -20 "$work/build-$1.log"; fail "build of $1"; }
  echo "$1: built in $(since "$began"), $(podman image inspect -f '{{.Size}}' "$2" | numfmt --to=si)B"
}

step_bases() { docker/bases.sh; }

step_build() {
  build service localhost/fewloop:service
  build trainer-cuda localhost/fewloop:trainer
  for target in postgres kafka prometheus; do
    buildah build --isolation chroot --network host --format docker --layers --build-context "jars=$(echo .cache/kafka-*)" \
      --build-arg RUNTIME_IMAGE=localhost/debian:bookworm-slim --target "$target" -t "localhost/stand-in:$target" \
      docker/stand-ins > "$work/build-$target.log" 2>&1 || fail "build of stand-in $target"
  done
}

# Paths that a container changed outside its volumes and mounts; engines themselves write names and addresses.
written() { podman diff "$1" | awk '$2 !~ /^\/(etc|run|key)(\/|$)/ {print $2}' | xargs; }

step_embedded() {
  local began admin
  mkdir -p "$work/key"
  openssl rand -base64 32 > "$work/key/admin"
  chmod 0644 "$work/key/admin"
  podman rm -f fewloop-embedded > "$work/removed" 2>&1 || true
  podman volume rm -f fewloop-embedded > "$work/removed" 2>&1 || true
  began=$(date +%s)
  podman run -d --name fewloop-embedded --no-healthcheck --read-only --tmpfs /tmp --cap-drop all --memory 2g \
    --security-opt no-new-privileges --network host -v "$work/key:/key:ro" -v fewloop-embedded:/var/lib/fewloop \
    -e PORT="$FEWLOOP_PORT" -e FEWLOOP_URL="http://127.0.0.1:$FEWLOOP_PORT/graphql" \
    -e FEWLOOP_ADMIN_KEY_FILE=/key/admin -e FEWLOOP_TOKEN_FILE=/key/admin localhost/fewloop:service > "$work/started"
  until podman exec fewloop-embedded node /app/docker/ready.mjs > "$work/ready" 2>&1; do
    [ "$(podman inspect -f '{{.State.Running}}' fewloop-embedded)" = true ] || fail "ended: $(podman logs fewloop-embedded 2>&1 | tail -3)"
    sleep 0.5
  done
  echo "embedded: ready after $(since "$began")"
  is user "$(podman exec fewloop-embedded id -u)" 10001
  ! podman exec fewloop-embedded touch /app/x 2> "$work/touch" || fail 'the root can be written to'
  podman exec fewloop-embedded fewloop task apply /app/examples/reviews/task.yaml 2> "$work/warnings"
  is prediction "$(podman exec fewloop-embedded fewloop classify review-sentiment 太差了，用了两天就坏 | cut -f1)" negative
  admin=$(cat "$work/key/admin")
  is 'GraphQL with the key' "$(curl -s "127.0.0.1:$FEWLOOP_PORT/graphql" -H "authorization: Bearer $admin" \
    -H 'content-type: application/json' -d '{"query":"{tasks{name}}"}' | jq -r '.data.tasks[0].name')" review-sentiment
  is 'GraphQL without' "$(curl -s "127.0.0.1:$FEWLOOP_PORT/graphql" -H 'content-type: application/json' \
    -d '{"query":"{tasks{name}}"}' | jq -r '.errors[0].extensions.code')" UNAUTHENTICATED
  is 'written outside the volume' "$(written fewloop-embedded)" ''
  echo "memory: $(podman stats --no-stream --format '{{.MemUsage}}' fewloop-embedded)"
  began=$(date +%s)
  podman stop -t 60 fewloop-embedded > "$work/stopped"
  is "SIGTERM, $(since "$began"): exit status" "$(podman inspect -f '{{.State.ExitCode}}' fewloop-embedded)" 0
  podman rm fewloop-embedded > "$work/removed"
  podman volume rm fewloop-embedded > "$work/removed"
  for refused in FEWLOOP_AUTH=none FEWLOOP_DEVICE=cuda:0; do
    ! podman run --rm --no-healthcheck --network host -e "$refused" localhost/fewloop:service 2> "$work/refused" || fail "$refused starts"
    echo "$refused: $(grep fewloop: "$work/refused")"
  done
}

step_compose() {
  export DOCKER_HOST=unix://$work/podman.sock
  podman system service --time=0 "$DOCKER_HOST" > "$work/podman.log" 2>&1 &
  local service=$! health began admin
  # In place of systemd's timers.
  while sleep 2; do
    for id in $(podman ps -q --filter label=com.docker.compose.project=fewloop); do
      podman healthcheck run "$id" > "$work/health" 2>&1 || true
    done
  done &
  health=$!
  # By their numbers now: at the exit this function's variables are gone.
  trap "kill $service $health" EXIT
  until [ -S "$work/podman.sock" ]; do sleep 0.2; done

  local compose=(docker compose --env-file docker/stand-ins/env -f docker/compose.yaml)
  local fewloop=("${compose[@]}" exec -T service fewloop)
  "${compose[@]}" down --volumes > "$work/compose.log" 2>&1
  began=$(date +%s)
  # All but Grafana, which cannot be had here.
  "${compose[@]}" up -d --pull never --no-build prometheus stream trainer >> "$work/compose.log" 2>&1 || { tail "$work/compose.log"; fail up; }
  echo "compose: up after $(since "$began")"
  "${fewloop[@]}" task apply /app/examples/reviews/quick.yaml 2> "$work/warnings"
  is prediction "$("${fewloop[@]}" classify review-sentiment 太差了，用了两天就坏 | cut -f1)" negative
  "${fewloop[@]}" ingest review-sentiment /app/examples/reviews/texts.txt
  admin=$("${compose[@]}" exec -T service cat /run/fewloop/admin/key)
  ask() {
    curl -s "127.0.0.1:$FEWLOOP_PORT/graphql" -H "authorization: Bearer $admin" -H 'content-type: application/json' -d "{\"query\":\"$1\"}"
  }
  for _ in $(seq 60); do
    questions=$(ask '{ reviewQueue(task: \"review-sentiment\", first: 1) { totalCount } }' | jq .data.reviewQueue.totalCount)
    [ "$questions" = 42 ] && break
    sleep 1
  done
  is 'questions, of what came through Kafka' "$questions" 42
  "${fewloop[@]}" import review-sentiment /app/examples/reviews/labelled.jsonl
  began=$(date +%s)
  "${fewloop[@]}" retrain review-sentiment --wait
  echo "trained after $(since "$began")"
  promotion=$("${fewloop[@]}" promotions review-sentiment --json | jq -r 'if type == "array" then .[0].id else .id end' | head -1)
  "${fewloop[@]}" approve "$promotion" --override --comment 'trying the images'
  is 'prediction of the trained version' "$("${fewloop[@]}" classify review-sentiment 太差了，用了两天就坏 | cut -f1)" negative
  sleep 20
  is 'targets that Prometheus reads' "$(curl -s "127.0.0.1:$PROMETHEUS_PORT/api/v1/targets" | jq -r '[.data.activeTargets[].health] | join(" ")')" 'up up up'
  echo "rules: $(curl -s "127.0.0.1:$PROMETHEUS_PORT/api/v1/rules" | jq '[.data.groups[].rules[]] | length')"
  for role in service stream trainer; do
    is "$role: written outside volumes" "$(written "fewloop-$role-1")" ''
  done
  began=$(date +%s)
  "${compose[@]}" stop service stream trainer >> "$work/compose.log" 2>&1
  for role in service stream trainer; do
    is "$role: exit status" "$(podman inspect -f '{{.State.ExitCode}}' "fewloop-$role-1")" 0
  done
  echo "stopped after $(since "$began")"
  "${compose[@]}" down --volumes >> "$work/compose.log" 2>&1
}

[ $# -gt 0 ] || set -- bases build embedded compose
for step in "$@"; do "step_$step"; done
echo 'proven'
