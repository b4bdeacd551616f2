# What Go, npm and ccache need to run here. Scripts source it, and so does build/env.sh, for shells.
export PATH="/usr/local/go/bin:$PATH"

# Services and containers may have no HOME, where all three keep what they fetch and make.
if [ -z "${HOME:-}" ]; then
  HOME=$(getent passwd "$(id -u)" | cut -d: -f6) || true
  export HOME="${HOME:?is not set, and user $(id -u) has no folder; set it to one that you may write to}"
fi

if command -v go >/dev/null; then
  # Debian's Go forbids itself to fetch the version that go.mod names.
  if [ "$(cd / && go env GOTOOLCHAIN)" = local ]; then export GOTOOLCHAIN=auto; fi
  # Go would ask git about the checkout, and fail where that belongs to another user.
  GOFLAGS=$(cd / && go env GOFLAGS)
  case "$GOFLAGS" in
  *-buildvcs=*) ;;
  *) GOFLAGS="${GOFLAGS:+$GOFLAGS }-buildvcs=false" ;;
  esac
  export GOFLAGS
fi
