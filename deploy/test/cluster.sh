#!/usr/bin/env bash
# The chart on a real Kubernetes of one node, built and started here: install, test, a job, a worker deleted in the middle
# of it, an upgrade, an eviction and a rollback while it trains, its end, and a clean uninstall; then the quick start,
# followed to the letter. Debian 12, root. The images must be there (images.sh); the folder of helm, kubectl and r2octl is
# on the path.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
for program in helm kubectl r2octl etcd containerd ctr runc skopeo buildah dnsmasq conntrack catatonit; do
    command -v $program >/dev/null || { echo "cluster.sh needs $program" >&2; exit 1; }
done
export CONTAINERS_CONF=$here/containers.conf
work=$(mktemp -d /var/tmp/r2o-cluster.XXXXXX)
run=$work/run
forward=
finish() {
    local status=$?
    # Whatever fails here, the rest is cleaned up.
    set +e
    if ((status)); then
        echo "--- failed; the state of things:"
        kubectl --namespace r2o get pods,events 2>/dev/null | tail -30
        kubectl --namespace r2o logs r2o-coordinator-0 2>/dev/null | tail -10
    fi
    [[ -n $forward ]] && kill "$forward" 2>/dev/null
    KUBE_BIN=${bin:-} "$here/cluster/down.sh" "$run"
    rm -rf "$work"
    exit $status
}
trap finish EXIT
started=$SECONDS
say() { printf '\n=== %3d s  %s\n' $((SECONDS - started)) "$*"; }
show() {
    echo "\$ $*"
    "$@"
}
# The first lines of what comes; the rest is read too, or its writer would die of a closed pipe.
first() { sed -n "1,$1p"; }
# Asks until a condition holds.
await() {
    local what=$1 end=$((SECONDS + 900))
    shift
    until "$@"; do
        ((SECONDS < end)) || { echo "waited in vain: $what" >&2; return 1; }
        sleep 0.5
    done
    echo "seen: $what"
}

say "Kubernetes is built, once"
bin=$("$here/kubernetes.sh")
say "it starts"
"$here/cluster/up.sh" "$run" "$bin" 2>"$work/up.log" || { cat "$work/up.log" >&2; exit 1; }
export KUBECONFIG=$run/kubeconfig
"$here/cluster/load.sh" "$run" localhost/r2o/coordinator:0.1.0 localhost/r2o/worker-cpu:0.1.0 2>/dev/null
show kubectl get nodes

# What a cloud's storage class would do.
volume() {
    kubectl delete persistentvolume one --ignore-not-found >/dev/null
    rm -rf "$work/volume"
    mkdir "$work/volume"
    chown 65532:65532 "$work/volume"
    kubectl apply --filename - >/dev/null <<E
{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "one"}, "spec": {"capacity": {"storage": "20Gi"},
 "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "$work/volume"}}}
E
}
volume

say "helm install --wait"
chart=deploy/helm/r2o
values=(--set workers.threads=1 --set coordinator.workerLease=10 --set workers.resources.requests.cpu=100m)
show helm install r2o "$chart" --namespace r2o --create-namespace --wait --timeout 3m "${values[@]}" | first 6
show kubectl --namespace r2o get pods

say "helm test"
show helm test r2o --namespace r2o --logs | tail -9

secret() { kubectl --namespace r2o get secret "$1" -o go-template="{{index .data \"$2\" | base64decode}}"; }
secret r2o-tls ca.crt >"$work/ca.crt"
(umask 077 && secret r2o-tokens submitter >"$work/token")
export R2O_COORDINATOR=https://localhost:17070 R2O_TLS_CA=$work/ca.crt R2O_TOKEN_FILE=$work/token
# A forward ends with the pod that it leads to.
reach() {
    if [[ -z $forward ]] || ! kill -0 "$forward" 2>/dev/null || ! r2octl list >/dev/null 2>&1; then
        [[ -z $forward ]] || kill "$forward" 2>/dev/null || true
        kubectl --namespace r2o port-forward service/r2o-coordinator 17070:7070 >/dev/null 2>&1 &
        forward=$!
        for _ in $(seq 20); do
            r2octl list >/dev/null 2>&1 && return
            sleep 0.3
        done
        return 1
    fi
}
ask() { reach && r2octl get demo -o json | grep -o "\"$1\": *\"\\?[^\",]*" | first 1 | sed 's/.*[:"] *//'; }
step() { ask step; }
is() { [[ $(ask state) == "$1" ]]; }
after() {
    local now
    now=$(step) && ((${now:-0} >= $1)) && return
    # Whatever is to happen in the middle of the job does not happen after it.
    ! is Succeeded || { echo "the job ended with step $now: give it more by R2O_CLUSTER_EPOCHS" >&2; exit 1; }
    return 1
}
ready() {
    [[ $(kubectl --namespace r2o get statefulset "r2o-$1" -o jsonpath='{.status.readyReplicas}') == "$2" ]]
}

say "a job"
r2octl data pack tests/fixtures/photos --out "$work/photos"
kubectl --namespace r2o cp "$work/photos" r2o-worker-0:/state/data
epochs=${R2O_CLUSTER_EPOCHS:-12}
sed -e 's#demo-out/data#file:///state/data#' -e "s/epochs: 12/epochs: $epochs/" -e 's/imageSize: 96/imageSize: 64/' \
    -e 's/samplesPerLane: 8/samplesPerLane: 2/' deploy/jobs/demo.yaml >"$work/job.yaml"
await "the coordinator is reached" reach
show r2octl submit --file "$work/job.yaml"
await "step 4 is committed" after 4

say "a worker pod is deleted in the middle of it"
show kubectl --namespace r2o delete pod r2o-worker-1 --grace-period=0 --force --wait=false 2>&1
before=$(step)
await "three more steps than $before" after $((before + 3))
await "two workers are ready again" ready worker 2
r2octl events demo | tail -5

say "an upgrade in the middle of it, of coordinator and workers"
sum() { kubectl --namespace r2o get secret r2o-tls r2o-client-tls r2o-tokens -o jsonpath='{.items[*].data}' | sha256sum; }
kept=$(sum)
same() {
    [[ $(sum) == "$kept" ]] || { echo "certificates or tokens are others than those of the install" >&2; return 1; }
    echo "seen: certificates and tokens are those of the install"
}
before=$(step)
show helm upgrade r2o "$chart" --namespace r2o --wait --timeout 5m "${values[@]}" --set workers.collectiveTimeout=200 \
    --set coordinator.joinWindow=5 | first 5
same
await "three more steps than $before" after $((before + 3))
r2octl fleet

say "a drain, which evicts one worker at a time"
before=$(step)
show kubectl drain node --ignore-daemonsets --delete-emptydir-data --timeout=8s \
    --pod-selector=app.kubernetes.io/component=worker 2>&1 | tail -4 || true
running=$(kubectl --namespace r2o get pods --selector app.kubernetes.io/component=worker --no-headers | grep -c Running)
echo "workers that run: $running"
((running >= 1))
await "three more steps than $before, on those that are left" after $((before + 3))
show kubectl uncordon node
await "two workers are ready again" ready worker 2

say "a rollback"
before=$(step)
show helm rollback r2o 1 --namespace r2o --wait --timeout 5m
same
show helm history r2o --namespace r2o
await "three more steps than $before" after $((before + 3))

say "the job's end"
await "the job succeeds" is Succeeded
reach && show r2octl get demo
r2octl events demo | tail -3

say "helm uninstall"
kill "$forward" 2>/dev/null || true
forward=
show helm uninstall r2o --namespace r2o --wait 2>&1
# Helm leaves the pods of tests to those who read their logs.
kubectl --namespace r2o delete pod r2o-test >/dev/null
kinds=all,secrets,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets
left() { kubectl --namespace r2o get $kinds --selector app.kubernetes.io/instance=r2o -o name; }
nothing() { [[ -z $(left) ]]; }
await "nothing is left but the volume claim" nothing
show kubectl delete namespace r2o

say "the quick start, to the letter"
volume
unset R2O_COORDINATOR R2O_TLS_CA R2O_TOKEN_FILE
"$here/quickstart.sh" >"$work/quickstart.log" 2>&1 || { cat "$work/quickstart.log"; exit 1; }
grep -E '^(job|Succeeded)|Phase|Succeeded' "$work/quickstart.log" | tail -5
say "all of it held"
