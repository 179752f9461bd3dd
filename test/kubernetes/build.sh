#!/bin/sh
# Builds from the Go module proxy what test/kubernetes runs against: etcd, kube-apiserver, kube-controller-manager, kubectl
# and kustomize, and fetches the definitions of KEDA's and prometheus-operator's resources. Needs Go 1.26 and curl; takes
# half an hour on two cores, and 6 GB of Go's caches.
#   test/kubernetes/build.sh FOLDER
set -eu
folder=${1:?usage: test/kubernetes/build.sh FOLDER}
kubernetes=v1.36.3 staging=v0.36.3 etcd=v3.6.16 kustomize=v5.8.1 keda=v2.19.0 operator=v0.85.0
proxy=${GOPROXY_URL:-https://proxy.golang.org}
export GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=0
mkdir -p "$folder/src/kubernetes" "$folder/src/etcd" "$folder/crds"
folder=$(cd "$folder" && pwd)

# A module that only names what is to be built: `go install` refuses modules with replacements, as these are.
module() {
  cd "$folder/src/$1" && rm -f go.mod go.sum && go mod init "$1"
  shift
  printf '//go:build tools\n\npackage tools\n' > tools.go
  for import in "$@"; do printf 'import _ "%s"\n' "$import" >> tools.go; done
}

GOBIN=$folder go install "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"

programs='kube-apiserver kube-controller-manager kubectl'
module kubernetes $(for program in $programs; do echo "k8s.io/kubernetes/cmd/$program"; done)
curl -fsS "$proxy/k8s.io/kubernetes/@v/$kubernetes.mod" | grep -oE '^\s+k8s.io/[a-z-]+ v0.0.0$' | while read -r name _; do
  echo "replace $name => $name $staging" >> go.mod
done
go get "k8s.io/kubernetes@$kubernetes"
version=k8s.io/component-base/version
for program in $programs; do
  nice -n 15 go build -p 2 -o "$folder/" -ldflags "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=36" \
    "k8s.io/kubernetes/cmd/$program"
done

module etcd go.etcd.io/etcd/server/v3
go get "go.etcd.io/etcd/server/v3@$etcd"
nice -n 15 go build -p 2 -o "$folder/etcd" go.etcd.io/etcd/server/v3

definitions() {
  curl -fsS -o "$folder/src/module.zip" "$proxy/$1.zip"
  unzip -o -q -j "$folder/src/module.zip" "$2" -d "$folder/crds"
}
definitions "github.com/kedacore/keda/v2/@v/$keda" '*/keda.sh_scaledobjects.yaml'
definitions "github.com/prometheus-operator/prometheus-operator/@v/$operator" \
  '*/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml'
