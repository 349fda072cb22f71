#!/usr/bin/env bash
# Follows docs/guide/quickstart-kubernetes.md to the letter: runs its `sh` blocks, in order, in one shell that stops at
# the first failure. kubectl, helm and r2octl are those on the path.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=docs/guide/quickstart-kubernetes.md
script=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$page")
if [[ $(grep -c . <<<"$script") -lt 15 ]]; then
    echo "$page has hardly any commands" >&2
    exit 1
fi
exec bash -euo pipefail -x -c "$script"
