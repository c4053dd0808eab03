#!/bin/bash
# Serve an example: one instance with two small disks under ./var, on a loopback address, to whoever has its token.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
port=${STILLFRAME_PORT:-8790}
instance=57111f2a-0000-4000-8000-000000000001
config=$root/var/stillframe.conf
export PATH=$root/.venv/bin:$PATH

mkdir -p var/disks
for disk in root data; do
    # Something that one recognises in a dump: 8 MiB of numbered lines.
    [ -e "var/disks/$disk.img" ] || awk -v text="the disk '$disk' of the instance 'demo', line" \
        'BEGIN { for (n = 1; n <= 131072; n++) printf "%-54s %8d\n", text, n }' >"var/disks/$disk.img"
done
cat >"$config" <<END
[DEFAULT]
state_dir = $root/var
bind_host = 127.0.0.1
bind_port = $port
END
[ -e var/instances/demo.toml ] ||
    stillframe --config-file "$config" instance add demo --id "$instance" --format value --column name >/dev/null \
        --disk "$root/var/disks/root.img,name=root,format=raw,bootable=yes" \
        --disk "$root/var/disks/data.img,name=data,format=raw"

api=http://127.0.0.1:$port
cat <<END

Type this in another terminal. The instance 'demo' is off; its disks are two files that you may spoil as you like.

  cd $root; export PATH=$root/.venv/bin:\$PATH STILLFRAME_ENDPOINT=$api STILLFRAME_CONFIG=$config
  stillframe instance show demo
  stillframe snapshot create before --instance demo --wait
  sha256sum var/disks/*.img
  echo damage | dd of=var/disks/data.img conv=notrunc status=none; sha256sum var/disks/*.img
  stillframe snapshot restore before --wait; sha256sum var/disks/*.img
  stillframe snapshot delete before --wait
  stillframe doctor

Any client of the API can do the same. It has to show the token that the service made at its first start, in a file that
only you can read; the command line finds it by itself. The function hands it to curl past the list of processes. Each
answer has the URI of its task, where its progress can be read:

  ask() { curl -s -H @- "\$@" <<<"X-Auth-Token: \$(cat $root/var/auth/token)"; }
  ask $api/compute/v2.1/default/servers/$instance/action -H 'Content-Type: application/json' \\
       -d '{"vm-snapshot": {"name": "by-curl", "description": "all volumes", "volumes": []}}'; echo
  ask $api/volume/v3/default/instance-snapshots; echo
  id=\$(stillframe snapshot show by-curl -f value -c id)
  ask $api/compute/v2.1/default/servers/$instance/action -H 'Content-Type: application/json' \\
       -d '{"vm-restore": {"instance_snapshot_id": "'\$id'"}}'; echo
  ask "\$(stillframe snapshot show by-curl -f value -c task_uri)"; echo
  ask -X DELETE $api/volume/v3/default/instance-snapshots/\$id; echo

Ctrl-C ends it; what is under ./var stays for the next time.

END
exec stillframe --config-file "$config" serve
