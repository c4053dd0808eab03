#!/bin/bash
# Install those of the named Debian packages that are missing; without root, or on another system, say which.
set -euo pipefail

missing=()
command -v dpkg >/dev/null || { echo "This is no Debian: please see to it that you have: $*" >&2; exit 0; }
for package in "$@"; do
    dpkg --status "$package" 2>/dev/null | grep -q '^Status: .* installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Missing, and only root can install them: apt-get install ${missing[*]}" >&2
    exit 0
fi

# The servers are for tests, which start their own; none is to be left running by the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}"
