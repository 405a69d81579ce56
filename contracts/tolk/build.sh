#!/bin/sh
# Compiles the contracts again. The hashes it prints belong into artifact.go.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund >&2
node build.mjs
grep -H codeHashHex ../build/*.json
