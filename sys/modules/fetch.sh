#!/bin/sh
# fetch.sh folder url: brings every archive of distinfo into folder, checks it and unpacks
# it there. An archive that lies in folder already is not downloaded, so that a machine
# without a network can be given them.

set -eu
dir=$1
url=$2
here=$(cd "$(dirname "$0")" && pwd)
again="make -C $here fetch CRATES=$dir"

fail() {
	echo "toehold: $*" >&2
	exit 1
}

has() {
	command -v "$1" >/dev/null 2>&1
}

# download from to
download() {
	if has fetch; then
		fetch -q -o "$2" "$1"
	elif has curl; then
		curl -fsSL -o "$2" "$1"
	elif has wget; then
		wget -q -O "$2" "$1"
	else
		fail "no fetch, curl or wget to download $1"
	fi
}

sha256_of() {
	if has sha256sum; then
		sha256sum <"$1" | cut -d ' ' -f 1
	else
		sha256 -q "$1"
	fi
}

# check file from: the file against distinfo, where it is called $archive
check() {
	size=$(($(wc -c <"$1")))
	sum=$(sha256_of "$1")
	[ "$size $sum" = "$want_size $want_sum" ] || fail "$2 has $size bytes and" \
	    "SHA-256 $sum, but distinfo says $want_size bytes and $want_sum;" \
	    "remove $1 and run: $again"
}

mkdir -p "$dir" || fail "cannot write to $dir; run: make -C $here fetch CRATES=<folder>"

sed -n 's/^SHA256 (\(.*\)) = \(.*\)/\1 \2/p' "$here/distinfo" |
while read -r archive want_sum; do
	want_size=$(sed -n "s/^SIZE ($archive) = //p" "$here/distinfo")
	crate=${archive%.crate}
	if [ -f "$dir/$crate/src/lib.rs" ] && [ ! -f "$dir/$archive" ]; then
		echo "$crate: already in $dir"
		continue
	fi
	if [ ! -f "$dir/$archive" ]; then
		from=$url/${crate%-*}/$archive
		echo "$crate: $from"
		download "$from" "$dir/$archive.part" || fail "cannot download $from;" \
		    "put $archive of another machine into $dir and run: $again"
		check "$dir/$archive.part" "$from"
		mv "$dir/$archive.part" "$dir/$archive"
	fi
	check "$dir/$archive" "$dir/$archive"
	rm -rf "$dir/unpack" "${dir:?}/$crate"
	mkdir "$dir/unpack"
	tar -xzf "$dir/$archive" -C "$dir/unpack" || fail "cannot unpack $dir/$archive"
	mv "$dir/unpack/$crate" "$dir/$crate"
	rmdir "$dir/unpack"
done
