#!/bin/bash
# The story on an IBM Storage Virtualize array, which is simulated: snapshots by FlashCopy, damage, a restore whose
# mappings are shown while they copy, a restore that fails for one volume, its retry, and a snapshot deleted that an older
# one depends on. Runs an array and a service of its own; ends with 1 where a checksum is not what it has to be.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
for variable in ${!OS_@}; do unset "$variable"; done

work=$(mktemp -d "${TMPDIR:-/tmp}/stillframe-demo.XXXXXX")
array= service=
end() {
    status=$?
    for process in $service $array; do { kill "$process" && wait "$process"; } 2>/dev/null || true; done
    [ $status = 0 ] || { echo; echo "FAILED. The end of the service's log:"; tail -n 20 "$work/log" || true; } >&2
    rm -rf "$work"
}
trap end EXIT

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold= plain=; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
lab() { # PATH [CURL ARGUMENTS]: what a host or an operator does at the array, past the service
    curl -sf --cacert "$work/simulated-ca.pem" "$endpoint/lab/$1" "${@:2}"
}
sums() { for disk in root data; do printf '%s  %s\n' "$(lab "vdisks/$disk" | sha256sum | cut -c1-24)" "$disk"; done; }
is() { # EXPECTED WHAT: compare the volumes with checksums taken before
    sums
    [ "$(sums)" = "$1" ] || { say "WRONG: this is not $2" >&2; exit 1; }
    say "right: this is $2"
}
field() { python -c "import json, sys; found = json.load(sys.stdin); print($1)"; }
scribble() { # BYTES: a host writes that many random bytes to the beginning of both volumes
    for disk in root data; do head -c "$1" /dev/urandom | lab "vdisks/$disk" --data-binary @- >/dev/null; done
}
ask() { # PATH [CURL ARGUMENTS]: of the service, with its token, which no list of processes shows
    curl -sf -H @- "$api/$1" "${@:2}" <<<"X-Auth-Token: $(cat "$work/state/auth/token")"
}
mappings() { # VOLUME: the FlashCopy check of the API, one line for each mapping
    ask "volume/v3/default/volumes/$1/action" -H 'Content-Type: application/json' \
        -d '{"copy-progress": {"details": true}}' | field '"\n".join("  {status:<8} {progress:>3} %  restoring {restoring:<3} rate {copyrate:>3}  {source_vdisk_name:.24} -> {target_vdisk_name:.24}".format(**row) for row in found["copy_details"])'
}
ready() { # PROCESS FILE PATTERN: wait, as long as the process lives, until a line of its output says that it is ready
    until grep -q "$3" "$2" 2>/dev/null; do
        kill -0 "$1" 2>/dev/null || { say "it ended without saying '$3'; see $2" >&2; exit 1; }
        sleep 0.1
    done
}

title "An array with two volumes, and a service that knows it"
python -m tests.lab.storage_virtualize --port 0 --folder "$work" --speed 0.08 \
    --vdisk root=16777216 --vdisk data=16777216 >"$work/array" &
array=$!
ready $array "$work/array" answers
endpoint=$(cut -d' ' -f1 "$work/array" | head -n 1)
scribble 16777216
say "The array answers on $endpoint. It is simulated, and slow, so that there is something to see."
mkdir -p "$work/state/instances"
cat >"$work/stillframe.conf" <<END
[DEFAULT]
state_dir = $work/state
bind_port = 0
[drivers]
storage = storage_virtualize
[storage_virtualize]
arrays = simulated
poll_seconds = 0.2
[array:simulated]
endpoint = $endpoint
username = stillframe
password_file = $work/password
ca_file = $work/simulated-ca.pem
END
cat >"$work/state/instances/demo.toml" <<END
id = "57111f2a-0000-4000-8000-000000000002"
name = "demo"
project_id = "default"
qmp_socket = "$work/qmp"
[[vdisks]]
name = "root"
vdisk = "root"
[[vdisks]]
name = "data"
vdisk = "data"
END
export STILLFRAME_CONFIG=$work/stillframe.conf
stillframe serve >"$work/said" 2>"$work/log" &
service=$!
ready $service "$work/said" http
api=$(grep -o 'http://[0-9.:]*' "$work/said" | head -n 1)
export STILLFRAME_ENDPOINT=$api
volume=$(ask volume/v3/default/volumes | field 'found["volumes"][1]["id"]')

title "Three snapshots of both volumes at one instant each, with changes in between"
run stillframe snapshot create oldest --instance demo --wait --column status --format value
oldest=$(sums); scribble 4194304
run stillframe snapshot create middle --instance demo --wait --column status --format value
middle=$(sums); scribble 8388608
run stillframe snapshot create newest --instance demo --wait --column status --format value
newest=$(sums)
say "The FlashCopy mappings of one of the volumes; nothing is copied but what is written over:"
mappings "$volume"

title "Damage, and a restore to the oldest snapshot: its mappings as they copy"
scribble 16777216
sums
run stillframe snapshot restore oldest --column id --format value
while [ "$(stillframe snapshot show oldest --column status --format value)" = restoring ]; do
    mappings "$volume" | grep 'yes' || true
    sleep 0.4
done
is "$oldest" "the oldest snapshot"

title "The newest and the middle one were not touched by that"
run stillframe snapshot restore newest --wait --column status --format value
is "$newest" "the newest snapshot"
run stillframe snapshot restore middle --wait --column status --format value
is "$middle" "the middle snapshot"

title "A restore that the array refuses for one volume, and its retry"
scribble 1048576
lab faults -d '{"command": "startfcmap", "way": "fail", "code": "CMMVC5907E", "nth": 2}' >/dev/null
run stillframe snapshot restore newest --wait || say "exit code $?"
stillframe snapshot show newest --column status --column fault
run stillframe snapshot retry newest --wait --column status --format value
is "$newest" "the newest snapshot"

title "The middle snapshot goes; the oldest one, which read through it, gets its bytes first"
run stillframe snapshot delete middle --wait
run stillframe snapshot restore oldest --wait --column status --format value
is "$oldest" "the oldest snapshot"
run stillframe snapshot delete oldest --wait
run stillframe snapshot delete newest --wait
left=$(lab overview | field 'len(found["vdisks"]), len(found["mappings"]), len(found["groups"])')
[ "$left" = "2 0 0" ] || { say "WRONG: vdisks, mappings and groups that are left: $left" >&2; exit 1; }
say "Nothing is left on the array but the two volumes."
