#!/bin/sh
# Make the virtual environment $2 with Python $1, installing python3-venv where the system lacks it.
set -eu
python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "godwit needs Python 3.11 or later; '$python' is not. Try: make PYTHON=python3.12 ..." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    echo "Installing $package, which this system lacks ..."
    if ! { $as_root apt-get update -q && { DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy "$package" ||
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy python3-venv; }; }; then
        echo "Could not install it. Ask somebody who may: apt-get install python3-venv" >&2
        exit 1
    fi
fi

"$python" -m venv "$venv"
