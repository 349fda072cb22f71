#!/usr/bin/env bash
# Copies images of this machine's store into the cluster in the folder RUN.
set -euo pipefail
run=${1:?usage: load.sh RUN IMAGE...}
shift
for image in "$@"; do
    archive=$(mktemp -u "$run/image.XXXXXX")
    skopeo copy --quiet "containers-storage:$image" "docker-archive:$archive:$image"
    ctr --address "$run/containerd.sock" --namespace k8s.io images import "$archive" >/dev/null
    rm "$archive"
done
