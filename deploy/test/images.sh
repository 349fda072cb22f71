#!/usr/bin/env bash
# Builds the images coordinator and worker-cpu, or those of $TARGETS, without a registry: the base is made from the
# distribution's packages, once, and the programs are built here, the coordinator and r2octl linked statically. With FOLDER,
# its r2o-coordinator and r2octl (static), and r2o-worker (with the feature cuda for worker-cuda) are taken. Needs podman,
# buildah, mmdebstrap, and `cargo xtask setup`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
programs=${1:-}
libtorch=${LIBTORCH:-$root/.libtorch}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [[ -z $programs ]]; then
    programs=$context/programs
    mkdir "$programs"
    target=x86_64-unknown-linux-gnu
    cd "$root"
    CARGO_TARGET_DIR=target/static RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --target $target \
        --package r2o-coordinator --package r2octl
    cargo build --quiet --workspace --bins
    cp target/static/$target/debug/{r2o-coordinator,r2octl} target/debug/r2o-worker "$programs/"
fi
export CONTAINERS_CONF=$here/containers.conf
docker=$here/../docker
base=localhost/$(sed -n 's/^ARG DEBIAN=//p' "$docker/Dockerfile")
if ! podman image exists "$base"; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/r2o
    mkdir -p "$cache"
    if [[ ! -f $cache/debian-minbase.tar ]]; then
        mmdebstrap --quiet --variant=minbase --include=ca-certificates,libstdc++6 bookworm "$cache/debian-minbase.part.tar"
        mv "$cache/debian-minbase.part.tar" "$cache/debian-minbase.tar"
    fi
    podman import --quiet "$cache/debian-minbase.tar" "$base" >/dev/null
fi
mkdir -p "$context/image/bin" "$context/image/sbom" "$context/image/libtorch"
for program in r2o-coordinator r2octl r2o-worker; do
    strip -o "$context/image/bin/$program" "$programs/$program"
    (cd "$root" && cargo xtask sbom "$program") >"$context/image/sbom/$program.cdx.json"
done
cp "$docker/cuda.txt" "$context/image/"
cp -rL "$libtorch/lib" "$context/image/libtorch/lib"
build() { buildah bud --quiet --isolation=chroot --pull=never --layers "$@"; }
build --file "$docker/prebuilt.Dockerfile" --tag localhost/r2o/programs:prebuilt "$context/image" >/dev/null
for target in ${TARGETS:-coordinator worker-cpu}; do
    build --file "$docker/Dockerfile" --build-arg PROGRAMS=localhost/r2o/programs:prebuilt --build-arg "DEBIAN=$base" \
        --build-arg "REVISION=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)" \
        --target "$target" --tag "localhost/r2o/$target:0.1.0" "$context/image" >/dev/null
    podman image inspect --format "$target {{.Size}} bytes" "localhost/r2o/$target:0.1.0"
done
