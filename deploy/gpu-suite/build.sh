#!/usr/bin/env bash
# Builds the suite with CUDA, on any machine (no GPU needed), into a folder to take along.
#
#   deploy/gpu-suite/build.sh [--fleet] [FOLDER]     default: target/gpu-suite
#
# --fleet adds fleet.sh and, optimised, the programs that it runs.
#
# R2O_CUDA_ROOT names CUDA's headers and libtorch_cuda (worker/c10d/CUDA.md); `cargo xtask setup --cuda` makes such a folder
# and prints where it lies.
set -euo pipefail
cd "$(dirname "$0")/../.."

fleet=
if [ "${1:-}" = --fleet ]; then
    fleet=yes
    shift
fi
out=${1:-target/gpu-suite}
if [ -z "${R2O_CUDA_ROOT:-}" ]; then
    echo "R2O_CUDA_ROOT is not set: run \`cargo xtask setup --cuda\` and set it to the folder that it prints" >&2
    exit 2
fi
export R2O_CUDA_ROOT

cargo build --package r2o-gpu-suite --package r2o-c10d --features r2o-gpu-suite/cuda,r2o-c10d/cuda \
    --bin r2o-gpu-suite --example layers

mkdir -p "$out"
strip --strip-all -o "$out/r2o-gpu-suite" target/debug/r2o-gpu-suite
strip --strip-all -o "$out/r2o-layers" target/debug/examples/layers
cp deploy/gpu-suite/run.sh "$out/run.sh"
chmod +x "$out/run.sh"
if [ -n "$fleet" ]; then
    cargo build --release --package r2o-worker --features r2o-worker/cuda --bin r2o-worker
    cargo build --release --package r2o-coordinator --package r2octl --bins
    for program in r2o-worker r2o-coordinator r2octl; do
        strip --strip-all -o "$out/$program" "target/release/$program"
    done
    cp deploy/gpu-suite/fleet.sh "$out/fleet.sh"
    chmod +x "$out/fleet.sh"
fi
du -ch "$out"/*
