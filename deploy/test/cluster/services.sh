#!/usr/bin/env bash
# Tells the name service in the folder RUN the Services of the cluster, whenever one comes or goes.
set -euo pipefail
run=${1:?usage: services.sh RUN}
export KUBECONFIG=$run/kubeconfig
kubectl get services --all-namespaces --watch --no-headers -o name | while read -r _; do
    kubectl get services --all-namespaces --no-headers \
        -o custom-columns=A:.spec.clusterIP,N:.metadata.name,S:.metadata.namespace |
        awk '$1 != "None" { print $1, $2 "." $3 ".svc.cluster.local" }' >"$run/services.new"
    cat "$run/services.new" >"$run/services"
    kill -HUP "$(cat "$run/pids/dnsmasq")"
done
