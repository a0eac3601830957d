#!/usr/bin/env bash
# Switches on each bug of src/mutant.rs in turn and says which unit test finds it first, and which simulated history:
# of SEEDS, counted from 1, and else of LISTENER_SEEDS with listeners. Ends with "N of N mutants are found"; exit code 0 only when all are.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
unit=("$cargo" test --locked --all-features --quiet --lib)
simulation=("$cargo" test --locked --all-features --quiet --profile simulate --test it)
mapfile -t mutants < <(sed -n '/pub enum Mutant/,/^    }/s/^ *\([A-Z][A-Za-z]*\),$/\1/p' src/mutant.rs)

"${unit[@]}" --no-run && "${simulation[@]}" --no-run || exit 1
# Without a bug both are green: else they would find all of them.
"${unit[@]}" -- --skip properties >/dev/null && FIRST_SEED=1 SEEDS=${SEEDS:-1000} "${simulation[@]}" -- \
    simulate::random_seeds_break_no_promise >/dev/null || { echo 'they fail without a bug, too' >&2; exit 1; }

first_seed() { # SEEDS LISTENERS
    BATON_MUTANT=$mutant FIRST_SEED=1 SEEDS=$1 LISTENERS=$2 "${simulation[@]}" -- --nocapture \
        simulate::random_seeds_break_no_promise 2>&1 |
        sed -n "s/^--- \(seed [0-9]*\).* breaks \([^:]*\):.*/\1 (\2)${2:+ with listeners}/p" | sort -k2n | head -1
}
printf '%-22s %-34s %s\n' MUTANT SIMULATION 'UNIT TEST'
found=0
for mutant in "${mutants[@]}"; do
    # The random worlds would find some as well, but not by name.
    test=$(BATON_MUTANT=$mutant "${unit[@]}" -- --skip properties 2>&1 |
        sed -n 's/^    \([a-z_]*::.*\)$/\1/p' | head -1)
    seed=$(first_seed "${SEEDS:-1000}" '')
    if [[ -z $seed ]]; then seed=$(first_seed "${LISTENER_SEEDS:-150}" 1); fi
    if [[ -n $test$seed ]]; then found=$((found + 1)); fi
    printf '%-22s %-34s %s\n' "$mutant" "${seed:--}" "${test:--}"
done
printf '%d of %d mutants are found\n' "$found" "${#mutants[@]}"
((found == ${#mutants[@]}))
