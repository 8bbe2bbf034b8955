"""An example for each command and group, which its help ends with: what somebody would type first."""

from __future__ import annotations

#: The words of a command → examples.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("docker save app:1 | casstore load", "casstore images"),
    "pull": (
        "casstore pull registry.example/team/app:1",
        "casstore pull --platform linux/arm64 registry.example/app:1",
    ),
    "push": ("casstore push registry.example/team/app:1",),
    "mirror": (
        "casstore mirror sync.yaml --to registry.example/m",
        "casstore mirror registry.example/app --dry-run",
    ),
    "copy": (
        "casstore copy docker://registry.example/app:1 oci:layout:1",
        "casstore copy --all --no-store docker://registry.example/app:1 docker://mirror.example/app:1",
    ),
    "load": ("docker save app:1 | casstore load", "casstore load -i images.tar.gz"),
    "save": ("casstore save -o app.tar app:1 app:2", "casstore save app:1 | docker load"),
    "import": (
        "casstore import -c 'CMD [\"sh\"]' rootfs.tar.xz base:1",
        "casstore import https://example.org/rootfs.tar.gz",
    ),
    "export": ("casstore export app:1 | tar -t",),
    "images": ("casstore images --format '{{.Repository}}:{{.Tag}} {{.Size}}'", "casstore images -f dangling=true"),
    "tag": ("casstore tag app:1 registry.example/team/app:stable",),
    "rmi": ("casstore rmi app:1",),
    "history": ("casstore history --no-trunc app:1",),
    "inspect": ("casstore inspect -f '{{range .Config.Env}}{{println .}}{{end}}' app:1",),
    "ls": ("casstore ls app:1 /etc",),
    "cat": ("casstore cat app:1 /etc/os-release",),
    "diff": ("casstore diff app:1 app:2",),
    "unpack": ("casstore unpack app:1 ./rootfs",),
    "login": ("cat password | casstore login -u me --password-stdin registry.example",),
    "logout": ("casstore logout registry.example",),
    "search": ("casstore search -f stars=10 nginx",),
    "ls-remote": ("casstore ls-remote registry.example/team/app",),
    "manifest": ("casstore manifest get registry.example/team/app:1",),
    "manifest get": ("casstore manifest get registry.example/team/app:1",),
    "manifest digest": ("casstore manifest digest registry.example/team/app:1",),
    "gc": ("casstore gc --dry-run", "casstore gc --max-time 2m"),
    "check": ("casstore check", "casstore check --read-data --repair"),
    "df": ("casstore df -v",),
    "verify": ("casstore verify app:1",),
    "init": ("casstore --store /srv/images init --chunk-size 64KiB",),
    "completion": ("source <(casstore completion bash)", "casstore completion fish | source"),
    "version": ("casstore version --format json",),
    "demo": ("casstore demo",),
    "blob": ("casstore blob put notes.txt", "casstore blob ls"),
    "blob put": ("tar -c src | casstore blob put -",),
    "blob cat": ("casstore blob cat --range 0-99 sha256:…",),
    "blob ls": ("casstore blob ls --format '{{.Digest}} {{.Encoding}}'",),
    "blob inspect": ("casstore blob inspect sha256:…",),
    "blob rm": ("casstore blob rm sha256:…",),
    "bundle": ("casstore bundle create app-2.bundle app:2 --have app:1", "casstore bundle load app-2.bundle"),
    "bundle create": (
        "casstore bundle create app-2.bundle app:2 --have app:1",
        "casstore bundle create - app:3 --since app-2.bundle | ssh host casstore bundle load -",
    ),
    "bundle load": ("casstore bundle load app-2.bundle",),
    "bundle inspect": ("casstore bundle inspect app-2.bundle",),
    "bundle have": ("casstore bundle have", "casstore bundle have --format json"),
    "config": ("casstore config ls", "casstore config set min-free 5GiB"),
    "config get": ("casstore config get pack.after",),
    "config set": ("casstore config set compression zstd:9",),
    "config ls": ("casstore config ls",),
    "image": ("casstore image ls", "casstore image prune"),
    "image ls": ("casstore image ls -q",),
    "image rm": ("casstore image rm app:1",),
    "image prune": ("casstore image prune -a -f --filter until=24h",),
}


def of(path: str) -> str:
    """The examples of `casstore image load`, one below the other; "" where there are none."""
    words = path.partition(" ")[2]
    found = EXAMPLES.get(words) or EXAMPLES.get(words.removeprefix("image "), ())
    return "\n\n".join(f"Example: {each}" if i == 0 else f"Or: {each}" for i, each in enumerate(found))
