#!/usr/bin/env bash
# Ends the cluster in the folder RUN, by the process ids that up.sh wrote, and what it left on the machine.
set -uo pipefail
run=${1:?usage: down.sh RUN}
stop() {
    local pid
    [[ -f $run/pids/$1 ]] || return
    pid=$(cat "$run/pids/$1")
    kill -- "-$pid" 2>/dev/null
    for _ in $(seq 25); do
        kill -0 -- "-$pid" 2>/dev/null || return
        sleep 0.2
    done
    kill -KILL -- "-$pid" 2>/dev/null
}
for name in services names kubelet; do stop $name; done
if [[ -S $run/containerd.sock ]]; then
    ctr=(ctr --address "$run/containerd.sock" --namespace k8s.io)
    "${ctr[@]}" tasks ls -q | xargs -r -n1 "${ctr[@]}" tasks kill --signal SIGKILL >/dev/null 2>&1
    for _ in $(seq 50); do
        [[ -z $("${ctr[@]}" tasks ls 2>/dev/null | grep RUNNING) ]] && break
        sleep 0.2
    done
    "${ctr[@]}" containers ls -q | xargs -r -n1 "${ctr[@]}" containers rm >/dev/null 2>&1
fi
"${KUBE_BIN:-$run}/kube-proxy" --cleanup >/dev/null 2>&1
for name in proxy containerd scheduler controllers apiserver etcd; do stop $name; done
awk -v run="$run" 'index($2, run) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r -n1 umount -l
ip link del r2opods 2>/dev/null
ip link del r2onode 2>/dev/null
rm -rf "$run"
