#!/usr/bin/env bash
# Trains on one GPU with a coordinator and two workers over NCCL, kills one of them, and prints a Markdown table. Then
# trains a reproducible job undisturbed on one worker, and once more on two of which one is killed: equal weights.
#
#   ./fleet.sh PHOTOS [DEVICE]      DEVICE: cuda or cpu (small networks); default: cuda
#
# Beside this script lie r2o-coordinator, r2o-worker and r2octl, as `build.sh --fleet` lays them. PHOTOS is a folder of images,
# of which no two are the same. LD_LIBRARY_PATH as run.sh sets it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
photos=$1
device=${2:-cuda}
work=$(mktemp -d)
cores=$(nproc)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

"$here/r2octl" data pack "$photos" --out "$work/data" --threads "$cores" >"$work/pack.log" 2>&1
"$here/r2o-coordinator" --listen 127.0.0.1:0 --state "file://$work/state" --address-file "$work/address" \
    >"$work/coordinator.log" 2>&1 &
for _ in $(seq 200); do [ -s "$work/address" ] && break; sleep 0.05; done
R2O_COORDINATOR=http://$(sed 's#^http://##' "$work/address")
export R2O_COORDINATOR

worker() { # NAME
    NCCL_HOSTID="fleet-$1" NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 "$here/r2o-worker" run --name "$1" \
        --device "$device" --advertise 127.0.0.1 --loader-threads $((cores / 2 > 1 ? cores / 2 : 1)) \
        >"$work/$1.log" 2>&1 &
    eval "$1=$!"
}
field() { # JOB NAME
    "$here/r2octl" get "$1" -o json |
        python3 -c "import json,sys; job = json.load(sys.stdin); print((job.get('progress') or {}).get('$2', 0))"
}
wait_step() { # JOB STEP
    for _ in $(seq 1200); do
        local state
        state=$(field "$1" state)
        [ "$(field "$1" step)" -ge "$2" ] && return
        case "$state" in Failed | Succeeded | Cancelled) break ;; esac
        sleep 0.1
    done
    echo "$1 is $(field "$1" state) at step $(field "$1" step), wanted $2" >&2
    tail -n 15 "$work"/*.log >&2
    exit 1
}
job() { # NAME EPOCHS WORKERS BACKBONE SIZE LANES SAMPLES HIDDEN PRECISION REPRODUCIBLE
    cat >"$work/$1.yaml" <<YAML
apiVersion: r2o.dev/v1
kind: TrainJob
metadata: {name: $1}
spec:
  epochs: $2
  data: {url: "file://$work/data", imageSize: $5}
  batch: {lanes: $6, samplesPerLane: $7, normGroupLanes: $6}
  method:
    prior: {kind: slic, segments: 100}
    curriculum: {kind: cosine, from: 32, to: 4, epochs: [0, $2]}
  model: {backbone: $4, projector: {hidden: $8, output: 64}, predictor: {hidden: $8}}
  precision: $9
  optimizer: {warmupEpochs: 0}
  reproducible: ${10}
  fleet: {minWorkers: 1, maxWorkers: 2, device: $device}
  checkpoint: {every: {epochs: 10, minutes: null}}
YAML
    "$here/r2octl" submit "$work/$1.yaml" >/dev/null
}
finished() { # JOB
    "$here/r2octl" watch "$1" >"$work/watch.log" 2>&1 || { tail -n 20 "$work"/*.log >&2; exit 1; }
}
weights() { # JOB
    "$here/r2octl" export "$1" --out "$work/$1.safetensors" >/dev/null
    # Without the file's head, which names the job.
    python3 - "$work/$1.safetensors" <<'PY'
import hashlib, sys
data = open(sys.argv[1], "rb").read()
print(hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()[:16])
PY
}
now() { date +%s.%N; }
rate() { # JOB IMAGES_PER_STEP SECONDS: over that time
    local first from
    first=$(field "$1" step)
    from=$(now)
    sleep "$3"
    python3 -c "print(f'{($(field "$1" step) - $first) * $2 / ($(now) - $from):.0f}')"
}

if [ "$device" = cuda ]; then
    large=(resnet50 224 4 64 4096 bfloat16 false)
    images=256 epochs=25 kill_at=30 seconds=8
else
    large=(resnet18 64 2 8 64 float32 false)
    images=16 epochs=3 kill_at=6 seconds=2
fi
echo "| fleet on one $device | result |"
echo "| --- | --- |"
worker one
worker two
job fleet "$epochs" 2 "${large[@]}"
wait_step fleet $((kill_at / 2))
echo "| two workers, ${large[*]:0:4} | $(rate fleet "$images" "$seconds") images/s |"
wait_step fleet "$kill_at"
before=$(field fleet step)
killed=$(now)
kill -9 "$two"
wait_step fleet $((before + 3))
echo "| kill -9 of one: three more steps after | $(python3 -c "print(f'{$(now) - $killed:.2f} s')"), from step $before |"
echo "| one worker | $(rate fleet "$images" "$seconds") images/s |"
"$here/r2octl" cancel fleet >/dev/null

same=(resnet18 64 4 8 64 float32 true)
short=1
job alone "$short" 1 "${same[@]}"
finished alone
worker three
job together "$short" 2 "${same[@]}"
wait_step together 1
wait_step together $(($(field together steps) / 2))
kill -9 "$three"
finished together
a=$(weights alone) b=$(weights together)
echo "| reproducible: undisturbed on one worker | weights $a |"
echo "| reproducible: two workers, one killed | weights $b, $([ "$a" = "$b" ] && echo equal || echo DIFFER) |"
[ "$a" = "$b" ]
