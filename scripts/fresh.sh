#!/usr/bin/env bash
# Tries README's two commands on a fresh machine: makes a bare Debian in a folder (debootstrap's minbase), copies what this
# checkout has committed into it, runs the commands there as root, and says of each whether it passed.
#
#   scripts/fresh.sh bookworm|trixie [OPTIONS] [COMMAND...]
#
#   COMMAND        a line for bash, run in the project's folder; default: scripts/demo.sh, then scripts/test.sh
#   --without-git  no git is there
#   --tarball      the project comes as a source tarball, without .git, and not as a clone
#   --add FILE     copies a file, such as a package, into the project's folder; repeatable
#   --foreign      its files belong to another user than root, as those of a mounted folder do
#   --dir DIR      the folder that is made, for root and logs, 8 GB; default: one in /var/tmp
#   --keep         does not remove that folder at the end
#   --cache DIR    keeps bare roots, Debian's packages, and what ccache and Go fetch and make, so that the next call is quicker
#   --mirror URL   where Debian comes from; default: where this machine's apt has it from
#
# Of this machine the bare one gets apt's sources and proxies, certificates of its own, where Go and npm fetch from, and no
# environment: no HOME, no locale. Needs root, and debootstrap and git here.
set -euo pipefail
source "$(dirname "$0")/common.sh"

suite='' git=yes tarball='' foreign='' dir='' keep='' cache='' mirror='' commands=() added=()
while [ $# -gt 0 ]; do
  case "$1" in
  --without-git) git='' ;;
  --tarball) tarball=yes ;;
  --foreign) foreign=yes ;;
  --keep) keep=yes ;;
  --dir | --cache | --mirror)
    [ $# -ge 2 ] || fail 2 "$1 needs a value; see --help"
    declare "${1#--}=$2"
    shift
    ;;
  --add)
    [ -f "${2:-}" ] || fail 2 "--add needs a file; see --help"
    added+=("$(realpath "$2")")
    shift
    ;;
  -*) unknown "$1" ;;
  *) if [ -z "$suite" ]; then suite=$1; else commands+=("$1"); fi ;;
  esac
  shift
done
case "$suite" in
bookworm | trixie) ;;
*) fail 2 "bookworm or trixie is needed, got ${suite:-neither}; see --help" ;;
esac
[ ${#commands[@]} -gt 0 ] || commands=(scripts/demo.sh scripts/test.sh)
[ "$(id -u)" = 0 ] || fail 1 "debootstrap and chroot need root: sudo scripts/fresh.sh $suite"
for program in debootstrap git unshare; do
  command -v $program >/dev/null || fail 1 "$program is missing; apt-get install debootstrap git util-linux"
done
[ ! -e "$dir" ] || fail 1 "$dir is there; --dir names a folder to be made"
[ -z "$dir" ] || dir=$(realpath -m "$dir")
[ -z "$cache" ] || cache=$(realpath -m "$cache")
cd "$(dirname "$0")/.."

# Lines for sources.list: a mirror's, or what apt here has of Debian, for the other suite.
if [ -n "$mirror" ]; then
  sources="deb $mirror $suite main"
else
  here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | sort -u |
    awk -v here="$here" -v suite="$suite" 'index($2, here) == 1 { print "deb", $1, suite substr($2, length(here) + 1), "main" }')
  mirror=$(awk -v suite="$suite" '$3 == suite { print $2; exit }' <<<"$sources")
  [ -n "$mirror" ] || fail 1 "apt knows no Debian here; call apt-get update, or name a mirror: --mirror URL"
fi
settings=''
if command -v apt-config >/dev/null; then
  settings=$(apt-config dump Acquire | grep -E '^Acquire::(https?|Check-[A-Za-z-]*)(::[^ ]*)? ') || true
  eval "$(apt-config shell http_proxy Acquire::http::Proxy)" # for debootstrap
  [ -z "${http_proxy:-}" ] || export http_proxy
fi

environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done
if command -v go >/dev/null; then
  for name in GOPROXY GONOPROXY GOSUMDB GONOSUMDB GOPRIVATE GOINSECURE; do
    value=$(cd / && go env $name)
    [ -z "$value" ] || environment+=("$name=$value")
  done
fi
if command -v npm >/dev/null; then environment+=("npm_config_registry=$(npm config get registry)"); fi
certificates=/usr/local/share/ca-certificates
if compgen -G "$certificates/*.crt" >/dev/null; then
  environment+=(NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt)
fi

if [ -n "$dir" ]; then mkdir -p "$dir"; else dir=$(mktemp -d /var/tmp/rdpp-fresh.XXXXXX); fi
root=$dir/root project=/root/rdpp
end() {
  local running
  running=$(jobs -p)
  [ -z "$running" ] || kill -KILL $running # unshare lets no other signal end it
  wait
  [ -n "$keep" ] || rm -rf --one-file-system "$dir"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# bare: makes the root, or unpacks the one of an earlier call.
bare() {
  local include=()
  [[ $mirror != https:* ]] || include=(--include=ca-certificates)
  if [ -n "$cache" ] && [ -e "$cache/$suite.tar" ]; then
    mkdir "$root" && tar -C "$root" -xpf "$cache/$suite.tar"
  else
    debootstrap --variant=minbase "${include[@]}" "$suite" "$root" "$mirror" || return
    if [ -n "$cache" ]; then
      mkdir -p "$cache" && tar -C "$root" -cpf "$cache/$suite.part" . && mv "$cache/$suite.part" "$cache/$suite.tar"
    fi
  fi || return
  echo "$sources" >"$root/etc/apt/sources.list"
  echo "$settings" >"$root/etc/apt/apt.conf.d/90here"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  mkdir -p "$root$certificates"
  cp "$certificates"/*.crt "$root$certificates/" 2>/dev/null || true
  [ ${#include[@]} = 0 ] || inside / update-ca-certificates
}

# inside FOLDER LINE: runs a line in the root, with processes and mounts of its own, so that nothing of it stays.
inside() {
  local binds=()
  if [ -n "$cache" ]; then
    mkdir -p "$cache/$suite"/{packages/partial,made,fetched} "$root"/root/{.cache,go}
    binds=("$cache/$suite/packages" /var/cache/apt/archives "$cache/$suite/made" /root/.cache "$cache/$suite/fetched" /root/go)
  fi
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1 folder=$2 line=$3 binds=$4
    shift 4
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    for ((; binds; binds--)); do
      mount --bind "$1" "$root$2"
      shift 2
    done
    exec chroot "$root" env -i "$@" bash -c "cd \"\$1\" && eval \"\$2\"" bash "$folder" "$line"
  ' bash "$root" "$1" "$2" $((${#binds[@]} / 2)) "${binds[@]}" "${environment[@]}" </dev/null &
  wait $! # which, unlike a command in the foreground, a signal interrupts
}

install_git() {
  inside / 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git'
}

copy() {
  if [ -n "$tarball" ]; then
    mkdir "$root$project" && git archive HEAD | tar -C "$root$project" -x
  else
    git clone --quiet --no-hardlinks . "$root$project"
  fi || return
  [ ${#added[@]} = 0 ] || cp "${added[@]}" "$root$project/" || return
  [ -z "$foreign" ] || chown -R 1000:1000 "$root$project"
}

# step NAME COMMAND...: says what became of it, and where it failed the failures in its output, and the end of that.
step() {
  local name=$1 log=${1//[^A-Za-z0-9]/_} start=$SECONDS
  log=$dir/${log:0:200}.log # a name of a file has 255 bytes at most
  shift
  if "$@" >"$log" 2>&1; then
    echo "fresh: $suite: $name passed, $((SECONDS - start)) s"
    return
  fi
  echo "fresh: $suite: $name FAILED, $((SECONDS - start)) s:"
  # A test that failed long before the end is named too.
  { head -n -30 "$log" | grep -A 8 -E '^ *--- FAIL|^FAIL|^panic:' | head -n 60; tail -n 30 "$log"; } | sed 's/^/    /' || true
  [ -z "$keep" ] || echo "fresh: all of its output is in $log"
  return 1
}

echo "fresh: $suite, $(git rev-parse --short HEAD) as a $([ -n "$tarball" ] && echo tarball || echo clone)${foreign:+ of another user}," \
  "$([ -n "$git" ] && echo with || echo without) git"
failed=0
step "bare root" bare || exit 1
[ -z "$git" ] || step "apt-get install git" install_git || exit 1
step "copy" copy || exit 1
for command in "${commands[@]}"; do
  step "$command" inside "$project" "$command" || failed=1
done
exit $failed
