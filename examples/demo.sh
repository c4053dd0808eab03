#!/bin/bash
# The whole story with checksums: a snapshot, damage, a restore; then restores that fail for a real reason, of which one
# is retried and one rolled back. Runs a service of its own in a folder of its own; ends with 1 where a checksum is
# not what it has to be.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
for variable in ${!OS_@}; do unset "$variable"; done

work=$(mktemp -d "${TMPDIR:-/tmp}/stillframe-demo.XXXXXX")
service=
data=$work/disks/data.img
end() {
    status=$?
    [ -z "$service" ] || { kill "$service" && wait "$service"; } 2>/dev/null || true
    [ $status = 0 ] || { echo; echo "FAILED. The end of the service's log:"; tail -n 20 "$work/log" || true; } >&2
    chattr -i "$data" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold= plain=; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
fails_with() { # CODE COMMAND...: the command has to fail, and in this way
    local expected=$1 found=0
    shift
    run "$@" || found=$?
    [ $found = "$expected" ] || { say "exit code $found, not $expected" >&2; exit 1; }
}
sums() { (cd "$work/disks" && sha256sum root.img data.img); }
is() { # EXPECTED WHAT: compare the disks with checksums taken before
    sums
    [ "$(sums)" = "$1" ] || { say "WRONG: this is not $2" >&2; exit 1; }
    say "right: this is $2"
}
field() { # EXPRESSION: from the JSON document on the standard input
    python -c "import json, sys; found = json.load(sys.stdin); print($1)"
}
damage() { # TEXT: overwrite the beginning of both disks
    for disk in root data; do
        { yes "$1 ($disk)" || true; } | head -c 1048576 | dd of="$work/disks/$disk.img" conv=notrunc status=none
    done
}
snapshot() { stillframe snapshot show before --format json; }

title "An instance with two disks, and a service"
mkdir "$work/disks"
for disk in root data; do
    head -c 8388608 /dev/urandom >"$work/disks/$disk.img"
done
export STILLFRAME_CONFIG=$work/stillframe.conf
printf '[DEFAULT]\nstate_dir = %s\nbind_port = 0\n' "$work/state" >"$STILLFRAME_CONFIG"
run stillframe instance add demo --column id --column volumes \
    --disk "$work/disks/root.img,name=root,format=raw" --disk "$work/disks/data.img,name=data,format=raw"
stillframe serve >"$work/said" 2>"$work/log" &
service=$!
until grep -q http:// "$work/said"; do
    kill -0 $service 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
cat "$work/said"
STILLFRAME_ENDPOINT=$(grep -o 'http://[^ ]*' "$work/said")
export STILLFRAME_ENDPOINT

title "1. A snapshot"
original=$(sums)
run stillframe snapshot create before --instance demo --wait --column status --column consistency
is "$original" "the original"

title "2. Damage, and a restore"
damage "first damage"
sums
run stillframe snapshot restore before --wait --column status
is "$original" "the original"

damaged=$original
if chattr +i "$data" 2>/dev/null && chattr -i "$data"; then
    title "3. A restore that fails: somebody has made the disk 'data' immutable"
    volume=$(stillframe instance show demo --format json | field 'found["volumes"]["data"]')
    damage "second damage"
    sums
    run chattr +i "$data"
    fails_with 1 stillframe snapshot restore before --wait
    [ "$(snapshot | field 'list(found["failed_snapshots"])')" = "['$volume']" ] || { say "the wrong volumes failed"; exit 1; }
    run stillframe snapshot show before --column status --column failed_snapshots --column temp_snapshots --column fault
    say "and meanwhile nobody can start the instance:"
    fails_with 4 stillframe instance start demo

    title "4. The cause is mended, and the restore retried: only what had failed is restored"
    run chattr -i "$data"
    run stillframe snapshot retry before --wait --column status --column failed_snapshots --column temp_snapshots
    is "$original" "the original"

    title "5. The same failure; this time everything goes back to what it was before the restore"
    damage "third damage"
    damaged=$(sums)
    sums
    run chattr +i "$data"
    fails_with 1 stillframe snapshot restore before --wait
    sums
    say "now one disk is restored and the other is not. The cause is mended, but nobody wants the restore any more:"
    run chattr -i "$data"
    run stillframe snapshot rollback before --wait --column status --column failed_snapshots --column temp_snapshots
    is "$damaged" "what it was before the restore"

else
    say "Parts 3 to 5 are left out: for a restore that fails, a disk is made immutable, which takes root and 'chattr'."
fi

title "6. The snapshot is deleted, and nothing is left over"
run stillframe snapshot delete before --wait
[ -z "$(stillframe snapshot list --format value)" ] || { say "there is still a snapshot"; exit 1; }
left=$(find "$work/disks" -mindepth 1 ! -name '*.img' ! -name .stillframe)
[ -z "$left" ] || { say "left over: $left"; exit 1; }
run find "$work/disks"
run stillframe doctor --column check --column result --column detail
is "$damaged" "what it was before the restore"

title "Everything was as it has to be."
