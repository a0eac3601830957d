#!/usr/bin/env bash
# Switches on each bug of src/mutant.rs in turn and says which test finds it first: the unit tests, else the simulation
# within SEEDS histories. Ends with "N of N mutants are found"; exit code 0 only when all are.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
test=("$cargo" test --locked --all-features)
mapfile -t mutants < <(sed -n '/pub enum Mutant/,/^    }/s/^ *\([A-Z][A-Za-z]*\),$/\1/p' src/mutant.rs)

"${test[@]}" --lib --test it --no-run --quiet || exit 1
printf '%-24s %-12s %s\n' MUTANT 'FOUND BY' TEST
found=0
for mutant in "${mutants[@]}"; do
    # The random worlds would find some as well, but not by name.
    out=$(BATON_MUTANT=$mutant "${test[@]}" --lib -- --skip properties 2>&1)
    by=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' <<<"$out" | head -1)
    layer='unit tests'
    if [[ -z $by ]]; then
        layer=simulation
        out=$(BATON_MUTANT=$mutant SEEDS=${SEEDS:-1000} "${test[@]}" --test it -- simulate:: 2>&1)
        by=$(grep -m1 -Eo 'seed [0-9]+.*' <<<"$out" || sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' <<<"$out" | head -1)
    fi
    if [[ -n $by ]]; then found=$((found + 1)); else layer='nothing'; fi
    printf '%-24s %-12s %s\n' "$mutant" "$layer" "$by"
done
printf '%d of %d mutants are found\n' "$found" "${#mutants[@]}"
((found == ${#mutants[@]}))
