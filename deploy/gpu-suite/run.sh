#!/usr/bin/env bash
# Runs the GPU suite on this machine and prints a Markdown table. Needs a Python with torch 2.11 (or TORCH_LIB).
#
#   ./run.sh [--quick] [--device cuda|cpu] [--limit SECONDS]
#
# PYTHON     the Python whose torch is used (default: python3)
# TORCH_LIB  torch's lib folder, instead of asking Python
#
# Exit codes: 0 all rows passed, 1 a row failed, 2 torch or the programs are missing, 3 not run: needs a GPU.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

for program in r2o-gpu-suite r2o-layers; do
    if [ ! -x "$here/$program" ]; then
        echo "$here/$program is missing: make it with deploy/gpu-suite/build.sh" >&2
        exit 2
    fi
done

# Asks without importing torch, which takes seconds.
if [ -z "${TORCH_LIB:-}" ]; then
    TORCH_LIB=$("$python" - <<'PY'
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    sys.exit("this Python has no torch: set PYTHON to one that has torch 2.11, or TORCH_LIB to its lib folder")
print(pathlib.Path(spec.origin).parent / "lib")
PY
    ) || exit 2
fi
version=$(cat "$TORCH_LIB/../version.py" 2>/dev/null | sed -n "s/^__version__ = '\(.*\)'/\1/p")
case "$version" in
    2.11.* | "") ;;
    *)
        echo "torch $version at $TORCH_LIB: the suite is built for 2.11" >&2
        exit 2
        ;;
esac

# The wheels of CUDA's libraries lie beside torch.
path=$TORCH_LIB
for folder in "$TORCH_LIB"/../../nvidia/*/lib; do
    [ -d "$folder" ] && path=$path:$folder
done
export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

echo "- machine: $(uname -m), $(nproc) CPUs"
echo "- GPU: $(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null | head -1 || true)"
echo "- torch: ${version:-unknown} at $TORCH_LIB"
echo
"$here/r2o-gpu-suite" "$@"
code=$?

quick=
device=cuda
previous=
for argument in "$@"; do
    [ "$argument" = --quick ] && quick=--quick
    [ "$previous" = --device ] && device=$argument
    previous=$argument
done
echo
"$here/r2o-layers" "$device" $quick
layers=$?
# A failed row counts more than one that did not run.
if [ "$code" -eq 0 ] || { [ "$code" -eq 3 ] && [ "$layers" -eq 1 ]; }; then code=$layers; fi
exit "$code"
