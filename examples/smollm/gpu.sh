#!/usr/bin/env bash
# What a GPU is for, in at most eight minutes of one H200: the chunked losses beside their peers, then the GPU form of the
# four studies. Everything is written as it comes, so that a cut-off leaves what was measured.
#
#   OUT=out examples/smollm/gpu.sh
#
# OUT       folder of the results (./out): environment.txt, bench.txt, bench.json, study-NAME.txt and what a study writes
#           into $OUT itself; parts.tsv has a line a part: name, exit status (124: out of time, -: left out), seconds
# BUDGET    seconds in all (465); a part gets what is left, at most its own limit
# PYTHON    the interpreter (python)
# STUDIES   which studies (gradients outcome extrapolation wild); FORM  their form (gpu); LIMIT  seconds of one (70)
# STUDY     the program of the studies (examples/smollm/study.py)
# TINY=1    the bench at sizes of seconds, and a CPU will do: checks this script
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

PYTHON=${PYTHON:-python} BUDGET=${BUDGET:-465} TINY=${TINY:-} FORM=${FORM:-gpu} LIMIT=${LIMIT:-70}
STUDIES=${STUDIES-gradients outcome extrapolation wild} STUDY=${STUDY:-examples/smollm/study.py}
OUT=${OUT:-out}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
export OUT TINY PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
SECONDS=0 failed=0
printf 'part\tstatus\tseconds\n' > "$OUT/parts.tsv"

note() { printf '%s\t%s\t%s\n' "$@" >> "$OUT/parts.tsv"; }

# part NAME LIMIT COMMAND…: run it for at most so many seconds, its output on the screen and in $OUT/NAME.txt
part() {
    local name=$1 limit=$2 left=$((BUDGET - SECONDS)) begin=$SECONDS status
    shift 2
    if ((left < 5)); then
        echo "== $name: left out, the time is used up"
        note "$name" - 0
        return 124
    fi
    echo "== $name (at most $((limit < left ? limit : left)) s)"
    timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" 2>&1 | tee "$OUT/$name.txt"
    status=${PIPESTATUS[0]}
    note "$name" "$status" $((SECONDS - begin))
    ((status == 0)) || { failed=1; echo "== $name: exit status $status"; }
    return "$status"
}

part environment 60 "$PYTHON" - <<'CHECK' || exit 1
import importlib.metadata as metadata, os, platform, sys
import torch

print("python", platform.python_version())
for name in ("torch", "triton", "transformers", "trl", "peft", "liger-kernel", "klsim"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "is not installed")
if torch.cuda.is_available():
    free, total = torch.cuda.mem_get_info()
    print(f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")
    print("bfloat16:", torch.cuda.is_bf16_supported())
elif os.environ["TINY"]:
    print("no CUDA device: tiny sizes on the CPU")
else:
    sys.exit("no CUDA device (TINY=1 checks this script on a CPU)")
CHECK

part bench 170 "$PYTHON" -m benchmarks.lm_cuda ${TINY:+--tiny} --json "$OUT/bench.json"

for study in $STUDIES; do
    if [[ ! -f $STUDY ]]; then
        echo "== study-$study: left out, there is no $STUDY"
        note "study-$study" - 0
        continue
    fi
    part "study-$study" "$LIMIT" "$PYTHON" "$STUDY" "$study" --form "$FORM"
done

echo "== $SECONDS s in all, results in $OUT"
exit "$failed"
