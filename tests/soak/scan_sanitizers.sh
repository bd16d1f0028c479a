#!/bin/sh
# Runs what looks at file systems (listing, attributes, reading and writing of many small files)
# under AddressSanitizer and UndefinedBehaviorSanitizer: its unit tests, and snapshots and restores
# of trees with every kind of file. Needs gcc's libasan. Environment: PYTHON (default python3).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
flags="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

cp -r "$root/src" "$scratch/src"
rm -f "$scratch"/src/packstone/filesystem/_scan*.so
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc $flags -shared -fPIC -DPy_LIMITED_API=0x030b0000 -I"$include" \
    "$root/src/packstone/filesystem/_scan.c" -o "$scratch/src/packstone/filesystem/_scan.abi3.so"
# Python itself leaks at exit; with malloc every object has its own red zones
cd "$root"
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
    PYTHONPATH=$scratch/src "$python" -m pytest -q -p no:cacheprovider \
    tests/unit/filesystem tests/operations/test_round_trip.py tests/operations/test_names.py
