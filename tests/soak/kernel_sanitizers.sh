#!/bin/sh
# Runs the chunking kernel under AddressSanitizer and UndefinedBehaviorSanitizer:
#   1. every scan path against the naive scheme on random runs (gcc or clang)
#   2. the unit tests with a sanitized extension (needs gcc's libasan)
#   3. libFuzzer on the same comparison for FUZZ_SECONDS (default 60), if clang is there
# Environment: PYTHON (default python3), ROUNDS (default 2000), FUZZ_SECONDS.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
kernel=$root/src/packstone/chunking
soak=$root/tests/soak
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# -fwrapv is what Python builds extensions with; the kernel must not need it
flags="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

${CC:-gcc} $flags -DSTANDALONE -I"$kernel" "$soak/kernel_differential.c" -o "$scratch/standalone"
"$scratch/standalone" "${ROUNDS:-2000}"

cp -r "$root/src" "$scratch/src"
rm -f "$scratch"/src/packstone/chunking/_kernel*.so
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc $flags -shared -fPIC -DPy_LIMITED_API=0x030b0000 -I"$include" "$kernel/_kernel.c" \
    -o "$scratch/src/packstone/chunking/_kernel.abi3.so"
# Python itself leaks at exit; with malloc every object has its own red zones
cd "$root"
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
    PYTHONPATH=$scratch/src "$python" -m pytest -q -p no:cacheprovider tests/unit/chunking

if command -v clang >/dev/null; then
    clang -g -O2 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I"$kernel" \
        "$soak/kernel_differential.c" -o "$scratch/fuzz"
    mkdir "$scratch/corpus"
    (cd "$scratch" && ./fuzz -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 \
        -print_final_stats=1 corpus 2>&1 | tail -12)
fi
