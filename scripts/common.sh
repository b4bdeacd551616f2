# Sourced by the scripts beside it before anything else: answers --help and -h by their head comment, sets the environment.

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# fail CODE TEXT: ends the script. Code 2 is for arguments.
fail() {
  local code=$1
  shift
  echo "$(basename "$0" .sh): $*" >&2
  exit "$code"
}

unknown() { fail 2 "unknown argument $1; see --help"; }

for argument; do
  case "$argument" in
  -h | --help)
    usage
    exit 0
    ;;
  esac
done
unset argument

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Scripts change to the checkout's folder.
if [ -n "${LIBTORCH:-}" ]; then export LIBTORCH=$(realpath -ms "$LIBTORCH"); fi
