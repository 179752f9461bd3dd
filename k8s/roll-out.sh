#!/bin/sh
# Applies an overlay: what others stand on, then the migration to its end, then the service.
#   k8s/roll-out.sh k8s/overlays/cpu
set -eu
overlay=${1:?usage: k8s/roll-out.sh OVERLAY}
namespace=${NAMESPACE:-fewloop}
kubectl delete job fewloop-migrate --namespace "$namespace" --ignore-not-found --wait
kubectl apply --kustomize "$overlay" --selector fewloop.io/phase=before
# Until it is one or the other: it has a deadline of its own.
until ended=$(kubectl get job fewloop-migrate --namespace "$namespace" \
  --output 'jsonpath={.status.conditions[?(@.status=="True")].type}' | grep -oE 'Complete|Failed'); do
  sleep 2
done
if [ "$ended" != Complete ]; then
  kubectl logs job/fewloop-migrate --namespace "$namespace" --tail=50 >&2 || true
  echo "the migration failed: nothing of the service was changed" >&2
  exit 1
fi
kubectl apply --kustomize "$overlay" --selector fewloop.io/phase!=before
for deployment in $(kubectl get deployment --namespace "$namespace" --selector app.kubernetes.io/name=fewloop --output name); do
  kubectl rollout status "$deployment" --namespace "$namespace" --timeout="${ROLLOUT_TIMEOUT:-15m}"
done
