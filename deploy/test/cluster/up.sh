#!/usr/bin/env bash
# Starts a one-node Kubernetes in the folder RUN from the programs in the folder BIN: etcd, API server, controllers,
# scheduler, containerd, kubelet, proxy, and a name service that knows Services. RUN/kubeconfig is the administrator's.
# Needs root, etcd, containerd, runc, the CNI plugins, conntrack, iptables, iproute2, dnsmasq, catatonit and openssl.
set -euo pipefail
run=${1:?usage: up.sh RUN BIN}
bin=${2:?usage: up.sh RUN BIN}
here=$(cd "$(dirname "$0")" && pwd)
node=10.201.0.1
mkdir -p "$run"/{logs,pids,certs,cni,kubelet}
start() {
    local name=$1
    shift
    # Each leads a group of its own, so that its children end with it.
    setsid "$@" >"$run/logs/$name.log" 2>&1 &
    echo $! >"$run/pids/$name"
}
# Asks until a command succeeds, for at most 90 s.
await() {
    local what=$1 end=$((SECONDS + 90))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > end)); then
            echo "waited in vain: $what (see $run/logs)" >&2
            exit 1
        fi
        sleep 0.3
    done
}

ip link show r2onode >/dev/null 2>&1 || ip link add r2onode type bridge
ip addr replace $node/32 dev r2onode
ip link set r2onode up
sysctl -qw net.ipv4.ip_forward=1
for file in containerd.toml kubelet.yaml; do
    sed "s#RUN#$run#g; s#NODE#$node#g" "$here/$file" >"$run/$file"
done
sed "s#RUN#$run#g" "$here/cni.conflist" >"$run/cni/10-r2o.conflist"
echo "nameserver $node" >"$run/resolv.conf"
openssl genrsa -out "$run/sa.key" 2048 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >"$run/users.csv"
cat >"$run/kubeconfig" <<E
apiVersion: v1
kind: Config
clusters: [{name: one, cluster: {server: "https://127.0.0.1:16443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: one, context: {cluster: one, user: admin}}]
current-context: one
E
chmod 600 "$run/kubeconfig" "$run/users.csv"
export KUBECONFIG=$run/kubeconfig

start etcd etcd --data-dir "$run/etcd" --listen-client-urls http://127.0.0.1:12379 \
    --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls http://127.0.0.1:12380 \
    --initial-advertise-peer-urls http://127.0.0.1:12380 --initial-cluster default=http://127.0.0.1:12380
start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:12379 --secure-port=16443 \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --insecure-port=0 --cert-dir="$run/certs" \
    --service-cluster-ip-range=10.0.0.0/24 --service-account-issuer=https://kubernetes.local \
    --service-account-signing-key-file="$run/sa.key" --service-account-key-file="$run/sa.key" \
    --token-auth-file="$run/users.csv" --authorization-mode=RBAC --allow-privileged=true \
    --endpoint-reconciler-type=none --kubelet-preferred-address-types=InternalIP
await "the API server" kubectl get --raw /readyz
start controllers "$bin/kube-controller-manager" --kubeconfig="$run/kubeconfig" \
    --service-account-private-key-file="$run/sa.key" --root-ca-file="$run/certs/apiserver.crt" \
    --use-service-account-credentials=true --bind-address=127.0.0.1 --port=0 --leader-elect=false
start scheduler "$bin/kube-scheduler" --kubeconfig="$run/kubeconfig" --bind-address=127.0.0.1 --port=0 \
    --leader-elect=false
start containerd containerd --config "$run/containerd.toml"
await containerd ctr --address "$run/containerd.sock" version
pause=$(mktemp -d)
cp "$(command -v catatonit)" "$pause/pause"
printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause", "-P"]\n' >"$pause/Dockerfile"
buildah bud --quiet --isolation=chroot --tag localhost/pause:1 "$pause" >/dev/null
rm -r "$pause"
"$here/load.sh" "$run" localhost/pause:1
start kubelet "$bin/kubelet" --config="$run/kubelet.yaml" --kubeconfig="$run/kubeconfig" --container-runtime=remote \
    --container-runtime-endpoint="unix://$run/containerd.sock" --node-ip=$node --hostname-override=node \
    --root-dir="$run/kubelet" --cert-dir="$run/certs/kubelet"
start proxy "$bin/kube-proxy" --kubeconfig="$run/kubeconfig" --hostname-override=node --cluster-cidr=10.244.0.0/16 \
    --masquerade-all --conntrack-max-per-core=0 --proxy-mode=iptables
touch "$run/services"
start names dnsmasq --keep-in-foreground --listen-address=$node --bind-interfaces --no-resolv --no-hosts \
    --addn-hosts="$run/services" --conf-file=/dev/null --pid-file="$run/pids/dnsmasq" --user=root --log-queries \
    --local=/cluster.local/ --local-ttl=1
start services "$here/services.sh" "$run"
await "the node" sh -c 'kubectl get node node -o jsonpath="{.status.conditions[?(@.type==\"Ready\")].status}" | grep -q True'
