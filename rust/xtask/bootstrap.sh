#!/bin/sh
# Makes sure that there is a cargo to run xtask with. Everything after that is xtask's.
set -eu

need=88	# rust-version of the workspace, 1.88
packages="cargo-web rustc-web"

fail() {
	echo "toehold: $1" >&2
	exit 1
}

if ! command -v cargo >/dev/null 2>&1; then
	if [ ! -f /etc/debian_version ]; then
		fail "cargo is missing; install Rust 1.$need or newer (FreeBSD: pkg install rust; elsewhere: https://rustup.rs)"
	fi
	if [ "$(id -u)" -ne 0 ]; then
		fail "cargo is missing; as root run: apt-get update && apt-get install -y $packages"
	fi
	echo "installing $packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update || fail "apt-get update failed; is there a network?"
	# shellcheck disable=SC2086 # a list of names
	apt-get -qq install -y --no-install-recommends $packages gcc libc6-dev ca-certificates ||
		fail "apt-get could not install: $packages"
fi

version=$(cargo --version 2>/dev/null) || fail "cargo does not run: $(cargo --version 2>&1)"
minor=$(echo "$version" | sed -n 's/^cargo 1\.\([0-9][0-9]*\)\..*/\1/p')
if [ -z "$minor" ] || [ "$minor" -lt "$need" ]; then
	fail "$version is too old: Rust 1.$need or newer is needed (Debian 12: packages $packages)"
fi
