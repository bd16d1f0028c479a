#!/bin/sh
# Runs the delta coder under AddressSanitizer and UndefinedBehaviorSanitizer:
#   1. its own and damaged bodies of random runs (gcc or clang)
#   2. the unit tests with a sanitized extension (needs gcc's libasan)
#   3. libFuzzer for FUZZ_SECONDS (default 60), if clang is there
# Environment: PYTHON (default python3), ROUNDS (default 20000), FUZZ_SECONDS.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
codec=$root/src/packstone/codec
soak=$root/tests/soak
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
flags="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

${CC:-gcc} $flags -DSTANDALONE -I"$codec" "$soak/delta_fuzz.c" -o "$scratch/standalone"
"$scratch/standalone" "${ROUNDS:-20000}"

cp -r "$root/src" "$scratch/src"
rm -f "$scratch"/src/packstone/codec/_delta*.so
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc $flags -shared -fPIC -DPy_LIMITED_API=0x030b0000 -I"$include" "$codec/_delta.c" \
    -o "$scratch/src/packstone/codec/_delta.abi3.so"
# Python itself leaks at exit; with malloc every object has its own red zones. The test with a
# limit on memory is left out: a sanitizer maps terabytes.
cd "$root"
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
    PYTHONPATH=$scratch/src "$python" -m pytest -q -p no:cacheprovider \
    tests/unit/codec/test_delta.py -k "not take_no_memory"

if command -v clang >/dev/null; then
    clang -g -O2 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I"$codec" \
        "$soak/delta_fuzz.c" -o "$scratch/fuzz"
    mkdir "$scratch/corpus"
    (cd "$scratch" && ./fuzz -max_total_time="${FUZZ_SECONDS:-60}" -max_len=8192 \
        -print_final_stats=1 corpus 2>&1 | tail -12)
fi
