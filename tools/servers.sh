#!/bin/sh
# Installs the mail server that nobody here wrote: Postfix, which the interoperability tests talk
# to, and its smtp-sink, which the benchmarks send to. Only root on Debian or Ubuntu can; on any
# other machine those tests are skipped by name, and this script still succeeds.
set -eu
PATH=$PATH:/usr/sbin:/sbin
packages="postfix sasl2-bin libsasl2-modules"

installed() {
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

missing=""
for package in $packages; do
    installed "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    exit 0
fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$missing; what needs them is skipped" >&2
    exit 0
fi

# "No configuration" keeps Postfix from asking, from starting and from listening.
export DEBIAN_FRONTEND=noninteractive
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections || true
apt="timeout 300 apt-get -qq -y -o DPkg::Lock::Timeout=60 -o Acquire::Retries=2"
if $apt update </dev/null >/dev/null && $apt install --no-install-recommends $missing </dev/null >/dev/null
then
    echo "installed:$missing" >&2
else
    echo "could not be installed:$missing; what needs them is skipped" >&2
fi
