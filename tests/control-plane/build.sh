#!/usr/bin/env bash
# Builds the control plane of the tests (see README.md beside this file) and
# links it into target/control-plane/bin of this clone. `make control-plane`
# calls it. Go modules are the only thing it downloads.
#
#   build.sh            what every test cluster needs
#   build.sh e2e        and what real nodes need: containerd 2, and from Debian's
#                       packages containerd 1.6, runc and the network plugins
#
#   KUBEBUILDER_ASSETS  a folder with programs to link instead of building them
#   XDG_CACHE_HOME      where the built programs are kept (default: ~/.cache)
set -euo pipefail
export LC_ALL=C # one order of file names for everyone: the cache key depends on it

say() { printf 'control plane: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

supplied= # the absolute path of KUBEBUILDER_ASSETS
if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
    supplied=$(cd "$KUBEBUILDER_ASSETS" 2>/dev/null && pwd) ||
        fail "KUBEBUILDER_ASSETS is no folder: $KUBEBUILDER_ASSETS"
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here"

clone=${here%/tests/control-plane}
bin=$clone/target/control-plane/bin
cache_root=${XDG_CACHE_HOME:-${HOME:?}/.cache}/baton/control-plane
cache_days=30       # what other versions left there goes when unused for so long
progress_seconds=30 # between two lines of progress where there is no terminal

# What is built depends on what is pinned here and not on the machine: no C
# compiler, no other toolchain, no workspace file. The user's GOFLAGS, GOPROXY
# and GOMODCACHE hold.
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

# In the order they are built: what starts a cluster first.
components=(etcd kubernetes kwok helm)
real_nodes= # set when the programs of real nodes are wanted too
case ${1:-} in
    e2e) components+=(containerd) real_nodes=1 ;;
    "") ;;
    *) fail "unknown argument $1: there is only e2e" ;;
esac
declare -A programs_of=(
    [etcd]="etcd"
    [kubernetes]="kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl"
    [kwok]="kwok"
    [helm]="helm"
    [containerd]="containerd containerd-shim-runc-v2 ctr pause"
)
declare -A module_of=(
    [etcd]=go.etcd.io/etcd/server/v3
    [kubernetes]=k8s.io/kubernetes
    [kwok]=sigs.k8s.io/kwok
    [helm]=helm.sh/helm/v4
    [containerd]=github.com/containerd/containerd/v2
)
declare -A packages_of=(
    [etcd]=go.etcd.io/etcd/server/v3
    [kubernetes]=. # all programs in one, told apart by the name they are called by
    [kwok]=sigs.k8s.io/kwok/cmd/kwok
    [helm]=helm.sh/helm/v4/cmd/helm
    [containerd]="github.com/containerd/containerd/v2/cmd/containerd
        github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
        github.com/containerd/containerd/v2/cmd/ctr ./pause"
)
# What containerd could keep images in besides overlayfs, the only one in use.
declare -A tags_of=([containerd]=no_btrfs,no_zfs,no_devmapper,no_aufs)
debian_packages=(containerd runc containernetworking-plugins)

# The version of a component, as its go.mod pins it: v1.37.1.
version_of() {
    awk -v module="${module_of[$1]}" '
        $1 == "require" { $1 = ""; $0 = $0 }
        $1 == module && $2 ~ /^v/ { print $2; exit }' "$1/go.mod"
}

# Everything a built program depends on. The path of the clone is no part of
# it, so all clones and worktrees of a user share one build.
cache_key() {
    { uname -sm && sha256sum -- build.sh */go.mod */go.sum */*.go */*/*.go; } | sha256sum | cut -c1-16
}

# The variables a release build of the component sets. Without them kubectl and
# Helm cannot read the server's version and kwok calls itself unknown.
linker_flags() {
    local version major minor package
    version=$(version_of "$1")
    IFS=. read -r major minor _ <<<"${version#v}"
    printf -- '-s -w'
    case $1 in
        kubernetes)
            for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
                printf -- ' -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s' \
                    "$package" "$version" "$package" "$major" "$package" "$minor"
            done
            ;;
        kwok) printf -- ' -X sigs.k8s.io/kwok/pkg/consts.Version=%s' "$version" ;;
        helm) printf -- ' -X helm.sh/helm/v4/internal/version.version=%s' "$version" ;;
        containerd) printf -- ' -X github.com/containerd/containerd/v2/version.Version=%s' "$version" ;;
    esac
}

# Whether a program comes from the user's own folder.
is_supplied() { [[ -n $supplied && -x $supplied/$1 ]]; }

# Prints the components of which a program is neither supplied nor cached.
missing_components() {
    local component program
    for component in "${components[@]}"; do
        for program in ${programs_of[$component]}; do
            if ! is_supplied "$program" && [[ ! -x $cache/$program ]]; then
                echo "$component"
                break
            fi
        done
    done
}

require_tools() {
    local need found component program all="" wanted=""
    need=$(awk '$1 == "go" { split($2, part, "."); print part[1] "." part[2] }' kubernetes/go.mod)
    found=$(go env GOVERSION 2>/dev/null) || found=none
    if [[ ! $found =~ go([0-9]+)\.([0-9]+) ]] ||
        ((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2] < ${need%.*} * 1000 + ${need#*.})); then
        for component in "${components[@]}"; do all+=" ${programs_of[$component]}"; done
        for component in "$@"; do
            for program in ${programs_of[$component]}; do
                is_supplied "$program" || wanted+=" $program"
            done
        done
        cat >&2 <<EOF
control plane: Go $need or newer is needed (found: ${found:-unknown}) to build$wanted.
  Either install it, https://go.dev/doc/install (needs no root), or use what you have:
    KUBEBUILDER_ASSETS=FOLDER   a folder with$all:
                                what is there is linked and not built
    make demo KUBECONFIG=FILE   runs the demo on a cluster that is already there
EOF
        exit 1
    fi
    command -v flock >/dev/null || fail "the program flock (of util-linux) is missing"
}

# One build at a time, also of other clones: each uses every core.
take_lock() {
    local waited=0
    mkdir -p "$cache"
    exec 9>"$cache_root/lock"
    until flock -w $((waited ? progress_seconds : 0)) 9; do
        say "another build is running, waiting for it ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
        waited=1
    done
}

# Shows what `go build` with process id $1 is at, until it ends.
show_progress() {
    local pid=$1 label=$2 log=$3 started=$SECONDS next=$progress_seconds elapsed text
    while kill -0 "$pid" 2>/dev/null; do
        elapsed=$((SECONDS - started))
        printf -v text '%s: %d:%02d, %d packages compiled' "$label" \
            $((elapsed / 60)) $((elapsed % 60)) "$(grep -c '^[^ ]*$' "$log")" || true
        if [[ -t 2 ]]; then
            printf '\r\033[Kcontrol plane: %s' "$text" >&2
        elif ((elapsed >= next)); then
            say "$text"
            next=$((elapsed + progress_seconds))
        fi
        sleep 1 9>&- # the lock ends with this script, also when it is killed
    done
    if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# Builds a component and publishes its programs, each with one rename: who
# finds a program in the cache finds all of it.
build() {
    local component=$1 label=$2 started=$SECONDS program flags packages
    local built=$scratch/$component log=$scratch/$component.log
    say "$label"
    flags=$(linker_flags "$component")
    read -r -d '' -a packages <<<"${packages_of[$component]}" || true
    if ((${#packages[@]} > 1)); then mkdir "$built"; fi # then each program has a file of its own
    : >"$log" # there before its first reader
    (
        cd "$component"
        exec go build -v -mod=readonly -trimpath -buildvcs=false -ldflags "$flags" \
            -tags "${tags_of[$component]:-}" -o "$built" "${packages[@]}"
    ) >"$log" 2>&1 9>&- &
    go_build=$!
    show_progress "$go_build" "$label" "$log"
    if ! wait "$go_build"; then
        tail -n 40 "$log" >&2
        fail "$component could not be built (the end of its log is above)"
    fi
    go_build=
    for program in ${programs_of[$component]}; do
        # Hard links: a name found by resolving symbolic links still says which
        # of the Kubernetes programs it is.
        if [[ -d $built ]]; then ln "$built/$program" "$scratch/$program.new"; else ln "$built" "$scratch/$program.new"; fi
        mv -fT "$scratch/$program.new" "$cache/$program"
    done
    rm -r "$built"
    link_programs
    say "$label: done in $((SECONDS - started)) s"
}

go_build="" # the process id of the running `go build`
clean_up() {
    if [[ -n $go_build ]]; then kill "$go_build" 2>/dev/null || true; fi
    rm -rf "$scratch"
}

build_missing() {
    local missing component count=0
    mapfile -t missing < <(missing_components)
    ((${#missing[@]})) || return 0
    require_tools "${missing[@]}"
    take_lock
    mapfile -t missing < <(missing_components) # whoever had the lock may have built them
    ((${#missing[@]})) || return 0
    scratch=$cache/.build
    rm -rf "$scratch" # of a build that was killed: this one has the lock
    mkdir "$scratch"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    say "building ${missing[*]} with $(go env GOVERSION): up to 20 minutes on two cores, once"
    for component in "${missing[@]}"; do
        count=$((count + 1))
        build "$component" "$count/${#missing[@]} $component $(version_of "$component")"
    done
    find "$cache_root" -mindepth 1 -maxdepth 1 -type d -mtime "+$cache_days" -exec rm -rf {} +
}

# Unpacks what real nodes need of Debian, without installing it.
fetch_debian() {
    local package program
    [[ ! -d $cache/debian ]] || return 0
    for program in apt-get dpkg-deb; do
        command -v "$program" >/dev/null || fail "real nodes need programs from Debian packages, and $program is missing"
    done
    rm -rf "$cache/.debian"
    mkdir -p "$cache/.debian/packages"
    say "fetching ${debian_packages[*]} from Debian"
    (cd "$cache/.debian/packages" && apt-get download -q "${debian_packages[@]}" >download.log 2>&1) || {
        cat "$cache/.debian/packages/download.log" >&2
        fail "the packages could not be fetched (apt-get update may help)"
    }
    for package in "$cache/.debian/packages"/*.deb; do dpkg-deb -x "$package" "$cache/.debian"; done
    rm -r "$cache/.debian/packages"
    mv -T "$cache/.debian" "$cache/debian"
}

# Links the programs that are there.
link_programs() {
    local component program source
    mkdir -p "$bin"
    for component in "${components[@]}"; do
        for program in ${programs_of[$component]}; do
            source=$cache/$program
            if is_supplied "$program"; then source=$supplied/$program; fi
            [[ -x $source && $(readlink "$bin/$program") != "$source" ]] || continue
            # Not in place: something may be starting it at this moment.
            ln -sfn "$source" "$bin/.$program"
            mv -fT "$bin/.$program" "$bin/$program"
        done
    done
    if [[ $real_nodes && -d $cache/debian ]]; then ln -sfnT "$cache/debian" "$bin/debian"; fi
}

summary() {
    local component program text="" names=""
    for component in "${components[@]}"; do
        text+="${text:+, }$component $(version_of "$component")"
        for program in ${programs_of[$component]}; do
            if is_supplied "$program"; then names+="${names:+, }$program"; fi
        done
    done
    echo "control plane: $text in ${bin#"$clone"/}${names:+ (from KUBEBUILDER_ASSETS: $names)}"
}

cache=$cache_root/$(cache_key)
build_missing
if [[ $real_nodes ]]; then fetch_debian; fi
touch -c "$cache" # says that it is in use
link_programs
summary
