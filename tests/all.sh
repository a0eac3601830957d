#!/usr/bin/env bash
# Everything that must hold; `make test` calls it. Runs every part even when an
# earlier one failed, and ends with one line, "N passed, N failed": the sum over
# the test programs, each other part counted as one; ", N skipped" at its end where
# this machine cannot run a part, with the reason above. Exit code 0 only when
# nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
flags=(--locked --all-features --no-fail-fast)
export CARGO_TERM_COLOR=never # results are read from the output
mkdir -p target
log=$(mktemp target/test.XXXXXX)
control_plane=
clean_up() {
    if [[ -n $control_plane ]]; then kill "$control_plane" 2>/dev/null; fi
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
failed=0
skipped=0
failures=()
count() { # NAME EXIT_CODE
    if (($2 == 0)); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$1")
    fi
}

heading() { printf '\n=== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

part() { # NAME COMMAND…
    local name=$1 code=0
    shift
    heading "$name"
    "$@" || code=$?
    count "$name" $code
    return $code
}

# Runs test programs and adds their results up. A program that died has no
# result line: it counts as one failure, as does a test ignored without a reason.
tests() { # NAME CARGO_TEST_ARGUMENTS…
    local name=$1 code=0 sum programs results ok bad bare
    shift
    heading "$name"
    "$cargo" test "${flags[@]}" "$@" 2>&1 | tee "$log" || code=$?
    sum=$(awk '
        /^ +(Running .*\(.*\)|Doc-tests )/ { programs++ }
        /^test result: (ok|FAILED)\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored; / {
            results++
            ok += $4
            bad += $6
        }
        /^test .* \.\.\. ignored$/ { bare++ }
        END { printf "%d %d %d %d %d", programs, results, ok, bad, bare }' "$log")
    read -r programs results ok bad bare <<<"$sum"
    if ((results < programs)); then
        bad=$((bad + programs - results))
        failures+=("$name: $((programs - results)) of $programs test programs ended without a result")
    fi
    if ((bare > 0)); then
        bad=$((bad + bare))
        failures+=("$name: $bare tests are ignored without a reason")
    fi
    if ((code != 0 && bad == 0)); then
        bad=1
        failures+=("$name: cargo ended with exit code $code")
    fi
    mapfile -t -O ${#failures[@]} failures < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    passed=$((passed + ok))
    failed=$((failed + bad))
}

# The Go build takes longest where nothing is cached, so it goes first and
# beside everything that needs no cluster.
make --no-print-directory -s control-plane &
control_plane=$!

part format make --no-print-directory check-format
part build "$cargo" test "${flags[@]}" --no-run
part lints make --no-print-directory check-lints
part dependencies make --no-print-directory tools check-dependencies
tests "unit tests" --lib --bins --examples
tests "examples in the documentation" --doc

heading "control plane"
wait "$control_plane"
count "control plane" $?
control_plane=
tests "rules of the repository and tests against a real control plane" --test it
# Real kubelets need root and some of the kernel: where those are missing, one line says so.
heading "real nodes"
code=0
tests/e2e.sh can || code=$?
if ((code == 3)); then
    skipped=$((skipped + 1))
elif ((code != 0)); then
    count "real nodes" $code
elif part "programs of real nodes" make --no-print-directory -s e2e-programs; then
    RUST_TEST_THREADS=4 tests "real nodes" --test it -- --ignored e2e::
fi
# A dozen of all points, others each time; the seed is printed.
part "crash at a dozen writes" make --no-print-directory crash SAMPLE=12
# Last and alone: it measures how long the main job takes, and that no request is lost meanwhile.
part demo make --no-print-directory demo

printf '\n'
if ((${#failures[@]})); then printf 'failed: %s\n' "${failures[@]}"; fi
printf 'took %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%d passed, %d failed%s\n' "$passed" "$failed" "$( ((skipped)) && echo ", $skipped skipped")"
((failed == 0))
