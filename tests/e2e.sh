#!/usr/bin/env bash
# Tests on real nodes; `make e2e` calls it. Needs root on Debian or its like, and
# says in one line what is missing where they cannot run.
#
#   e2e.sh              the tests; one node with containerd 1.6 and one with 2, or CONTAINERD=2 for both. The images of
#                       operator and agent are those of make image, but unoptimized, unless IMAGE_PROFILE=image
#   e2e.sh can          whether they can run here: prints why not, exit code 3
#   e2e.sh prepare      builds and fetches what they need besides
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
flags=(--locked --all-features)
testbed=${CARGO_TARGET_DIR:-target}/debug/baton-testbed
export IMAGE_PROFILE=${IMAGE_PROFILE:-quick}
# Most of them wait for a kubelet most of the time; more of them than this starve each other on two cores.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-4}

cannot() {
    echo "skipped: real nodes: $*"
    exit 3
}

can() {
    local program why
    for program in apt-get dpkg-deb ldd; do
        command -v "$program" >/dev/null || cannot "the program $program is missing"
    done
    python3 -m pip --version >/dev/null 2>&1 || cannot "python3 with pip is missing"
    "$cargo" build "${flags[@]}" --quiet --bins --examples
    why=$("$testbed" cluster check 2>&1) || cannot "${why#error: }"
}

# A fresh machine does not know what its Debian has.
prepare() {
    if ((EUID == 0)) && ! apt-cache show containerd >/dev/null 2>&1; then apt-get update -q; fi
    tests/control-plane/build.sh e2e
    make --no-print-directory -s image ARCHITECTURES="$(architecture)"
}

architecture() {
    case $(uname -m) in
        aarch64) echo arm64 ;;
        *) echo amd64 ;;
    esac
}

case ${1:-} in
    can) can ;;
    prepare) prepare ;;
    "")
        can
        prepare
        "$cargo" test "${flags[@]}" --no-fail-fast --test it -- --ignored --show-output e2e::
        ;;
    *)
        sed -n '2,9s/^# \?//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
