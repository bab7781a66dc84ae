#!/bin/sh
# Pin all dependencies with their hashes, from pyproject.toml. Names no registry: pip asks the one it is set up with.
set -eu
cd "$(dirname "$0")/.."
unset PIP_FIND_LINKS UV_FIND_LINKS UV_INDEX_URL UV_EXTRA_INDEX_URL UV_INDEX UV_DEFAULT_INDEX 2>/dev/null || true

pin() {
    target=$1
    shift
    uv pip compile pyproject.toml requirements/build.in "$@" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "requirements/$target.txt"
}

# dev first: the smaller sets then keep its versions.
pin dev --extra edge --extra server --extra dev
for name in server edge base; do
    case $name in
        server) set -- --extra edge --extra server ;;
        edge) set -- --extra edge ;;
        base) set -- ;;
    esac
    pin "$name" "$@" --constraint requirements/dev.txt
done

# A tool with pins of its own, which the platform does not share.
uv pip compile requirements/sslyze.in --quiet --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements/sslyze.txt
