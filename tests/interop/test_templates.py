"""Templates: what docker's users ask for, here and of docker itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sample
from running import Cas

if TYPE_CHECKING:
    from conftest import Peer

RUNTIME = {
    "Env": ["PATH=/usr/bin:/bin", "A=1"],
    "Cmd": ["sh", "-c", "echo <hi>"],
    "Labels": {"org.example.b": "two", "a": 'say "1" & <2>', "empty": ""},
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "User": "www",
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000},
}
FULL = sample.rich_image("full", ["team/full:1", "team/full:2"], config=RUNTIME)
BARE = sample.rich_image("bare", ["bare:latest"], created="2024-03-04T05:06:07Z")

#: For `inspect -f` of each of the two images.
INSPECT = [
    "{{.Id}}",
    "{{.Id}} {{.Architecture}}/{{.Os}}",
    r"{{.Id}}\n{{.Os}}",
    "{{.RepoTags}}",
    "{{json .RepoTags}}",
    "{{index .RepoTags 0}}",
    '{{join .RepoTags ", "}}',
    "{{range .RepoTags}}{{println .}}{{end}}",
    "{{len .RootFS.Layers}} layers of type {{.RootFS.Type}}",
    "{{range .RootFS.Layers}}{{println .}}{{end}}",
    "{{range $i, $layer := .RootFS.Layers}}{{if $i}},{{end}}{{$layer}}{{end}}",
    "{{json .RootFS.Layers}}",
    "{{.Config.Env}}",
    "{{json .Config.Env}}",
    "{{range .Config.Env}}{{.}}\n{{end}}",
    '{{range .Config.Env}}{{if eq (index (split . "=") 0) "PATH"}}{{index (split . "=") 1}}{{end}}{{end}}',
    "{{.Config.Cmd}}|{{.Config.Entrypoint}}|{{.Config.OnBuild}}",
    "{{json .Config.Cmd}}|{{json .Config.Entrypoint}}|{{json .Config.OnBuild}}",
    '{{join .Config.Cmd " "}}',
    "{{.Config.Labels}}",
    "{{json .Config.Labels}}",
    '{{index .Config.Labels "a"}}|{{index .Config.Labels "nosuch"}}',
    '{{index .Config.Labels "org.example.b"}}',
    "{{.Config.Labels.a}}|{{.Config.Labels.nosuch}}",
    "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
    "{{len .Config.Labels}}",
    "{{with .Config.Labels}}labelled{{else}}plain{{end}}",
    '{{if index .Config.Labels "a"}}yes{{else}}no{{end}}',
    "{{.Config.ExposedPorts}}|{{.Config.Volumes}}",
    "{{json .Config.Volumes}}",
    "{{range $port, $_ := .Config.ExposedPorts}}{{$port}} {{end}}",
    "{{range $p, $conf := .Config.ExposedPorts}}{{$p}} -> {{$conf}}\n{{end}}",
    "{{.Config.User}}:{{.Config.WorkingDir}}:{{.Config.StopSignal}}",
    "{{if .Config.User}}user {{.Config.User}}{{else}}root{{end}}",
    "{{if .Config.Healthcheck}}{{.Config.Healthcheck.Test}}{{else}}none{{end}}",
    "{{with .Config.Healthcheck}}{{json .Test}}{{end}}",
    "{{.Config.Healthcheck | not}} {{not .Config.Labels}}",
    "{{.Created}}",
    "{{slice .Id 7 19}}",
    "{{truncate .Id 10}}|{{pad .Os 2 3}}|{{upper .Os}}|{{title .Os}}|{{lower .Architecture}}",
    '{{printf "%.10s %-8s|%8s|%q" .Id .Os .Architecture .Config.User}}',
    '{{printf "%d %5d %v %t" (len .RepoTags) (len .Config.Env) .Config.Env (eq .Os .Os)}}',
    '{{and .Config.User .Config.WorkingDir}}|{{or .Config.User "root"}}|{{not .Config.User}}',
    '{{if and (eq .Os "linux") (ne .Architecture "arm") (not .Parent)}}match{{end}}',
    "{{if gt (len .Config.Env) 1}}many{{else if eq (len .Config.Env) 1}}one{{else}}none{{end}}",
    "{{$name := .Os}}{{with .Config}}{{$name}} {{.WorkingDir}} {{$.Architecture}}{{end}}",
    "{{- .Os -}} x {{- /* a comment */ -}} y",
    '{{"a" | printf "%s-%s" .Os}}',
    "{{.Parent}}|{{.Author}}|{{.Comment}}|{{.Variant}}",
    "{{print .Os 1 2 .Os}}{{println}}",
    "{{.Config.Shell}}{{len .Config.Entrypoint}}",
    "{{eq .Os `linux`}} {{lt (len .Os) 9}} {{ge 1 2}}",
]

#: For `images --format`.
IMAGES = [
    "{{.Repository}}:{{.Tag}}",
    "{{.ID}}: {{.Repository}}",
    r"{{.Repository}}\t{{.Tag}}\t{{.Size}}",
    "{{.Repository}} {{.CreatedAt}}",
    "{{json .Repository}}",
    r"table {{.ID}}\t{{.Repository}}\t{{.Tag}}",
    r"table {{.Repository}}\t{{.CreatedAt}}",
    r"table {{upper .Repository}}\t{{.Size}}",
    "table {{truncate .Repository 4}} {{.Tag}}",
    '{{if eq .Tag "latest"}}{{.Repository}}{{else}}-{{end}}',
    "{{len .Repository}} {{pad .Tag 1 1}}|",
    '{{slice .ID 0 6}} {{join (split .Repository "/") "."}}',
]

#: What is refused by both.
BAD = [
    "{{",
    "{{.Id",
    "{{if}}x{{end}}",
    "{{if .Id}}x",
    "{{end}}",
    "{{nosuch .Id}}",
    "{{$x}}",
    "{{.Nosuch}}",
    "{{.Config.Nosuch}}",
    "{{.Id.More}}",
    "{{index .RepoTags 99}}",
    "{{range .Id}}{{end}}",
    '{{"a}}',
    "{{1 | 2}}",
    "{{len 3}}",
    "{{eq .Id 1}}",
    "{{join .RepoTags}}",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("templates") / "images.tar"
    path.write_bytes(sample.docker_archive(FULL, BARE))
    return path


@pytest.fixture(scope="module")
def peer(docker: Peer, archive: Path) -> Peer:
    docker("load", "-i", archive)
    return docker


@pytest.fixture
def loaded(cas: Cas, archive: Path) -> Cas:
    cas("load", "-i", archive)
    return cas


@pytest.mark.parametrize("name", ["team/full:1", "bare"])
def test_inspect(peer: Peer, loaded: Cas, name: str) -> None:
    wrong = []
    for template in INSPECT:
        theirs = peer.whole("image", "inspect", "-f", template, name)
        ours = loaded("inspect", "-f", template, name, ok=None)
        if (theirs[0], theirs[2]) != (ours.out, ours.code):
            wrong.append((template, theirs, ours))
    assert not wrong


def test_images(peer: Peer, loaded: Cas) -> None:
    wrong = []
    for template in IMAGES:
        theirs = peer("images", "--format", template, "--filter", "reference=team/full", "--filter", "reference=bare")
        ours = loaded("images", "--format", template).out
        if sorted(theirs.splitlines()) != sorted(ours.splitlines()):
            wrong.append((template, theirs, ours))
    assert not wrong


@pytest.mark.parametrize("template", BAD)
def test_what_is_refused(peer: Peer, loaded: Cas, template: str) -> None:
    _, err, code = peer.whole("image", "inspect", "-f", template, "bare")
    assert code != 0 and "emplate" in err
    done = loaded("inspect", "-f", template, "bare", ok=False)
    assert done.code == 125 and done.err.startswith("Error: template parsing error: template: :1:")
    assert done.out == ""
