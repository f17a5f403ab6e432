#!/bin/sh
# Installs the servers that nobody here wrote: Postfix, which the interoperability tests talk to,
# and its smtp-sink, which the benchmarks send to; an older PostgreSQL and PgBouncer, which the
# queue's tests are run on as well. Only root on Debian or Ubuntu can; on any other machine those
# tests are skipped by name, and this script still succeeds. No service is started or left enabled,
# and no database is created: the tests run the programs themselves.
set -eu
PATH=$PATH:/usr/sbin:/sbin
packages="postfix sasl2-bin libsasl2-modules postgresql-15 pgbouncer"
services="postgresql pgbouncer"

installed() {
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

known() {
    apt-cache show --no-all-versions "$1" 2>/dev/null | grep -q '^Package:'
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

# What keeps packages from acting on their own is there for the time of the installation only.
no_start=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/mailrace-none.conf
made=""
clean_up() {
    for file in $made; do
        rm -f "$file"
    done
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

if [ ! -e "$no_start" ]; then
    made="$made $no_start"
    printf '#!/bin/sh\nexit 101\n' >"$no_start"
    chmod 755 "$no_start"
fi
made="$made $no_cluster"
mkdir -p "${no_cluster%/*}"
echo "create_main_cluster = false" >"$no_cluster"

# "No configuration" keeps Postfix from asking, from starting and from listening.
export DEBIAN_FRONTEND=noninteractive
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections || true
apt="timeout 300 apt-get -qq -y -o DPkg::Lock::Timeout=60 -o Acquire::Retries=2"
new_services=""
for service in $services; do
    [ -e "/etc/init.d/$service" ] || new_services="$new_services $service"
done
wanted=""
refused=""
if $apt update </dev/null >/dev/null; then
    for package in $missing; do
        if known "$package"; then
            wanted="$wanted $package"
        else
            refused="$refused $package"  # another release has another version
        fi
    done
else
    refused=$missing
fi
if [ -n "$wanted" ]; then
    if $apt install --no-install-recommends $wanted </dev/null >/dev/null; then
        echo "installed:$wanted" >&2
    else
        refused="$wanted$refused"
    fi
fi
for service in $new_services; do
    [ ! -e "/etc/init.d/$service" ] || update-rc.d "$service" disable >/dev/null || true
done
if [ -n "$refused" ]; then
    echo "could not be installed:$refused; what needs them is skipped" >&2
fi
