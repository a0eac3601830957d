#!/usr/bin/env bash
# Tests of the tests: applies each patch of tests/mutants, a bug that a system like this one has had, to a copy of the repository,
# and says which unit test finds it first; if none does, which simulated history: of SEEDS counted from 1, and else of
# LISTENER_SEEDS with listeners. MUTANTS="A B" takes these alone. Ends with "N of N mutants are found"; exit code 0 only when all
# are. The crate is built anew for each: an hour and a half on two cores, so run it in the background.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# Lints refuse what mutants do; builds of their own leave those of the repository alone.
export RUSTFLAGS="--cap-lints allow" CARGO_TARGET_DIR=$PWD/target/mutants/build
tree=$PWD/target/mutants/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -xf - -C "$tree"
patches=$PWD/tests/mutants
mutants=(${MUTANTS:-$(basename -s .patch -a "$patches"/*.patch)})
cd "$tree" || exit 1

unit() { # The random worlds would find some as well, but not by name.
    "$cargo" test --locked --all-features --quiet --lib -- --skip properties 2>&1
}
first_seed() { # SEEDS LISTENERS
    FIRST_SEED=1 SEEDS=$1 LISTENERS=$2 "$cargo" test --locked --all-features --quiet --test it -- --nocapture \
        simulate::random_seeds_break_no_promise 2>&1 |
        sed -n "s/^--- \(seed [0-9]*\).* breaks \([^:]*\):.*/\1 (\2)${2:+ with listeners}/p" | sort -k2n | head -1
}

# Without a bug all is green: else the tests would find all of them.
unit >/dev/null || { echo 'the unit tests fail without a bug, too' >&2; exit 1; }
printf '%-22s %s\n' MUTANT 'FOUND BY'
found=0
for mutant in "${mutants[@]}"; do
    patch --quiet --strip 1 --input "$patches/$mutant.patch" || exit 1
    by=$(unit | sed -n 's/^    \([a-z_]*::.*\)$/\1/p' | head -1)
    if [[ -z $by ]]; then by=$(first_seed "${SEEDS:-300}" ''); fi
    if [[ -z $by ]]; then by=$(first_seed "${LISTENER_SEEDS:-100}" 1); fi
    if [[ -n $by ]]; then found=$((found + 1)); fi
    printf '%-22s %s\n' "$mutant" "${by:--}"
    patch --quiet --reverse --strip 1 --input "$patches/$mutant.patch" || exit 1
done
printf '%d of %d mutants are found\n' "$found" "${#mutants[@]}"
((found == ${#mutants[@]}))
