#!/bin/sh
# Install what the tests with real services need and this machine lacks: PostgreSQL, Chromium, Mosquitto and its clients,
# the samples of Paho C, npm, faketime. Starts nothing. $1 is the bin directory of the virtual environment.
set -eu
bin=$1

packages=""
want() { # want COMMAND PACKAGE: the command may also stand in sbin
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}
have_chromium() { command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; }

ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || packages="$packages postgresql"
want mosquitto mosquitto
want mosquitto_pub mosquitto-clients
want paho_c_pub paho.mqtt.c-examples
want npm npm
want openssl openssl
want curl curl
want faketime faketime
PATH="$PATH:/usr/sbin" command -v pki >/dev/null 2>&1 || packages="$packages strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins"
is_ubuntu=false
grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null && is_ubuntu=true
# Ubuntu's chromium package is a snap, which containers cannot run: Playwright brings its own there.
have_chromium || $is_ubuntu || packages="$packages chromium"

as_root=""
if [ "$(id -u)" != 0 ]; then
    as_root="sudo"
    [ -z "${CI:-}" ] || as_root="sudo -n"
fi

if [ -n "$packages" ]; then
    command -v apt-get >/dev/null 2>&1 || { echo "The tests need:$packages. Please install them." >&2; exit 1; }
    echo "Installing for the tests:$packages"
    [ -n "${APT_IS_FRESH:-}" ] || $as_root apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
    case $packages in
        *" mosquitto "* | *" mosquitto")
            # Its service would take port 1883, which is godwit's own.
            $as_root service mosquitto stop >/dev/null 2>&1 || true
            $as_root systemctl disable mosquitto >/dev/null 2>&1 || true
            ;;
    esac
fi

if ! have_chromium; then
    PATH="$bin:$PATH" $as_root "$bin/python" -m playwright install-deps chromium
    "$bin/python" -m playwright install chromium
fi
