"""Messages as every user may see them."""

from __future__ import annotations

import pytest

from stillframe.domain.disclosure import without_paths


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Could not open '/srv/a b/disk.qcow2': Permission denied", "Could not open '[path]': Permission denied"),
        ('cannot start "/usr/bin/it\'s": not there', 'cannot start "[path]": not there'),
        ("cutting the disks: no such file (/srv/vm/.stillframe/1)", "cutting the disks: no such file ([path])"),
        ("see /var/log/vm.log.", "see [path]."),
        ("/srv/one:/srv/two, /srv/three;/srv/four", "[path], [path];[path]"),
        ("the folder '/srv/x\\'y' and `/z z`", "the folder '[path]' and `[path]`"),
        ('json:{"driver": "file", "filename": "/srv/a b"}', 'json:{"driver": "file", "filename": "[path]"}'),
        ("file:/srv/x and 'file:/srv/x y' and file:///srv/x", "file:[path] and '[path]' and file://[path]"),
        ("nbd:unix:/run/sock=/tmp/x", "nbd:unix:[path]"),
        ("'file:///srv/x y' is not 'https://snap.example.org/x'", "'[path]' is not 'https://snap.example.org/x'"),
        ("/dev/vda", "[path]"),
        ("path=/etc/shadow!", "path=[path]!"),
        ("a\n/etc/x\nb", "a\n[path]\nb"),
    ],
)  # fmt: skip
def test_paths_of_a_host_are_taken_out(said: str, told: str) -> None:
    assert without_paths(said) == told


@pytest.mark.parametrize(
    "said",
    [
        "",
        "nothing to hide",
        "Retry and/or roll back; 3/4 of it, 12 MiB/s, w/o a reason.",
        "https://snap.example.org/volume/v3/p is not served; see http://127.0.0.1:8790/openapi.json",
        "must be usable as a file name: no '/', no leading '.'",
        "Input/output error",
        "application/json",
    ],
)
def test_all_else_stays(said: str) -> None:
    assert without_paths(said) == said
