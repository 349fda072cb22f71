#!/usr/bin/env bash
# Builds the images coordinator and worker-cpu from programs that are there: PROGRAMS is a folder with r2o-coordinator and
# r2octl (statically linked) and r2o-worker; LIBTORCH a libtorch folder. No registry is asked: the base is made from
# the distribution's packages, once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=${1:?usage: images.sh FOLDER LIBTORCH}
libtorch=${2:?usage: images.sh FOLDER LIBTORCH}
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
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/bin" "$context/libtorch"
for program in r2o-coordinator r2octl r2o-worker; do
    strip -o "$context/bin/$program" "$programs/$program"
done
cp -rL "$libtorch/lib" "$context/libtorch/lib"
build() { buildah bud --quiet --isolation=chroot --pull=never --layers "$@"; }
build --file "$docker/prebuilt.Dockerfile" --tag localhost/r2o/programs:prebuilt "$context" >/dev/null
for target in coordinator worker-cpu; do
    build --file "$docker/Dockerfile" --build-arg PROGRAMS=localhost/r2o/programs:prebuilt --build-arg "DEBIAN=$base" \
        --build-arg "REVISION=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)" \
        --target "$target" --tag "localhost/r2o/$target:0.1.0" "$context" >/dev/null
    podman image inspect --format "$target {{.Size}} bytes" "localhost/r2o/$target:0.1.0"
done
