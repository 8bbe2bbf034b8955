"""Plans of mirrors: the files that say them, hostile ones too, and which tags they choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from casstore.distribution import plan_of
from casstore.errors import BadInput, CasstoreError, Conflict, LimitExceeded, NotFound
from casstore.image.plan import Choice, Wanted, check_targets, of_reference
from casstore.image.plan_files import MAX_FILE, from_toml
from casstore.image.plan_versions import constraint, order_of
from casstore.image.plan_yaml import from_yaml
from casstore.transport.credentials import Credential

SKOPEO = """
registry.example.com:
    images:
        busybox: []
        redis:
            - "1.0"
            - 2.10
            - "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    images-by-tag-regex:
        nginx: ^1\\.13\\.[12]-alpine-perl$
    images-by-semver:
        postgres: ">= 15, < 17"
    credentials:
        username: john
        password: this is a secret
    tls-verify: true
    cert-dir: /home/john/certs
quay.io:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
docker.io:
    images: {alpine: }
"""


def chosen(choice: Choice, *tags: str) -> list[str]:
    return choice.by_name(tags)


def test_skopeos_own_example() -> None:
    plan = {str(one.repository): one for one in from_yaml(SKOPEO, "sync.yml").wanted}
    assert list(plan) == [
        "registry.example.com/busybox",
        "registry.example.com/redis",
        "registry.example.com/nginx",
        "registry.example.com/postgres",
        "quay.io/coreos/etcd",
        "docker.io/library/alpine",
    ]
    redis, nginx = plan["registry.example.com/redis"].choice, plan["registry.example.com/nginx"].choice
    assert redis.exact == ("1.0", "2.10", "sha256:" + "0" * 32 + "1" * 32)  # as it stands there, not as a number
    assert not plan["registry.example.com/busybox"].choice.exact
    assert chosen(nginx, "1.13.1-alpine-perl", "1.13.3-alpine-perl", "x1.13.1-alpine-perl") == ["1.13.1-alpine-perl"]
    assert chosen(plan["registry.example.com/postgres"].choice, "14", "15.2", "16", "17.0", "latest") == ["15.2", "16"]
    access = plan["registry.example.com/redis"].access
    assert access.credential == Credential("john", "this is a secret")
    assert access.verify and access.certificates == Path("/home/john/certs")
    assert not plan["quay.io/coreos/etcd"].access.verify and plan["quay.io/coreos/etcd"].access.credential is None


def test_aliases_that_do_no_harm() -> None:
    text = "a.example:\n  images: &i\n    x: &t ['1', '2']\n    y: *t\nb.example:\n  images: *i\n"
    found = [(str(one.repository), one.choice.exact) for one in from_yaml(text, "x").wanted]
    assert found == [(f"{host}.example/{name}", ("1", "2")) for host in "ab" for name in "xy"]


BOMB = "a: &a0 [x, x]\n" + "".join(f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(20))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a mapping"),
        ("- a", "not a mapping"),
        ("a.example: {image: {x: []}}", "a.example: unknown key 'image'"),
        ("a.example: {images: {x: []}, <<: {}}", "unknown key '<<'"),
        ("a.example: {images: [x]}", "images is not a mapping"),
        ("a.example: {images: {x: [[1]]}}", "images: x: not a list of tags"),
        ("a.example: {images: {x: ['a b']}}", "invalid tag format"),
        ("a.example: {images: {x: ['sha256:12']}}", "images: x: "),
        ("a.example: {images: {'x:1': []}}", "without tag or digest"),
        ("a.example: {images: {'UPPER': []}}", "must be lowercase"),
        ("a.example: {images: {'../../etc': []}}", "invalid reference format"),
        ("a.example: {images: {x: []}, images: {y: []}}", "the key 'images' stands there twice in line 1"),
        ("a.example: {images-by-tag-regex: {x: '('}}", "not a regular expression"),
        (f"a.example: {{images-by-tag-regex: {{x: '{'a' * 1001}'}}}}", "not a regular expression"),
        ("a.example: {images-by-semver: {x: 'newest'}}", "not a constraint on versions"),
        ("a.example: {images: {x: []}, tls-verify: maybe}", "tls-verify is neither"),
        ("a.example: {images: {x: []}, credentials: {user: x}}", "unknown key 'user'"),
        ("a.example: {}", "names no images"),
        ("a: b\n--- \nc: d", "more than one document in line 2"),
        ("a: *b", "not YAML|stands for nothing"),
        ("a: &a [*a]", "stands for nothing that is known"),
        ("a: [", "not YAML: .* in line [12]"),
        ("? [a]\n: b", "a key that is no text in line 1"),
        ("a: !!python/object/apply:os.system ['true']", "not a mapping with images"),
        ("a: " + "[" * 200_000, "nested too deeply|not YAML"),
        ("a: " + "{a: " * 20_000, "nested too deeply|not YAML"),
        (BOMB, "more than 500000 values in line"),
        ("\x00", "not YAML"),
    ],
)
def test_yaml_that_is_no_plan(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        from_yaml(text, "x.yaml")


OURS = """
[[image]]
source = "registry.example.com/team/app"
include = ["v1.*", "v2.*"]
exclude = ["*-rc*"]
newest = 2
since = 2026-01-01
platform = "linux/arm64/v8"
target = "mirror/app"

[[image]]
source = "busybox:1.36"

[[image]]
source = "b.example/x"
include = "1.0"
"""


def test_our_own_form() -> None:
    app, busybox, exact = from_toml(OURS, "x.toml").wanted
    assert (str(app.repository), app.platform, app.target) == (
        "registry.example.com/team/app",
        "linux/arm64",
        "mirror/app",
    )
    assert app.choice.since == datetime(2026, 1, 1, tzinfo=UTC) and app.choice.newest == 2 and app.choice.needs_dates
    assert chosen(app.choice, "v1.0", "v2.1-rc1", "v3", "xv1.0") == ["v1.0"]
    assert (str(busybox.repository), busybox.choice.exact) == ("docker.io/library/busybox", ("1.36",))
    assert exact.choice.exact == ("1.0",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("images = 1", "unknown key 'images'.*known are image"),
        ("image = 1", "not a list of tables"),
        ("[[image]]\n", "image 1: it has no source"),
        ("[[image]]\nsource = 'x'\ntags = []", "image 1: unknown key 'tags'"),
        ("[[image]]\nsource = 1", "source is not a text"),
        ("[[image]]\nsource = 'x:1'\ninclude = ['2']", "its tags stand in include"),
        ("[[image]]\nsource = 'x@sha256:" + "0" * 64 + "'", "its tags stand in include"),
        ("[[image]]\nsource = 'X'", "image 1: .*lowercase"),
        ("[[image]]\nsource = 'x'\nnewest = 0", "newest is not a number"),
        ("[[image]]\nsource = 'x'\nnewest = true", "newest is not a number"),
        ("[[image]]\nsource = 'x'\norder = 'size'", "order is 'size'"),
        ("[[image]]\nsource = 'x'\nsince = 'yesterday'", "since is 'yesterday'"),
        ("[[image]]\nsource = 'x'\nsince = 5", "since is no date"),
        ("[[image]]\nsource = 'x'\ninclude = [1]", "include is not a list"),
        ("[[image]]\nsource = 'x'\nplatform = '//'", "invalid platform"),
        ("[[image]]\nsource = 'x'\ntarget = '../x'", "invalid reference"),
        ("[[image]]\nsource = 'x'\ntarget = 'x:1'", "without tag or digest"),
        ("", "names no images"),
        ("x = ", "not TOML"),
        ("x = " + "[" * 100_000, "not TOML"),
    ],
)
def test_toml_that_is_no_plan(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        from_toml(text, "x.toml")


def test_files_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(OURS)
    (tmp_path / "b.yml").write_bytes(b"\xef\xbb\xbf" + SKOPEO.encode())
    whole = plan_of([str(tmp_path / "a.toml"), str(tmp_path / "b.yml"), "busybox", "busybox:1@sha256:" + "1" * 64])
    assert len(whole.wanted) == 3 + 6 + 2
    assert whole.wanted[-2].choice == Choice() and whole.wanted[-1].choice.exact == ("sha256:" + "1" * 64,)
    with pytest.raises(NotFound):
        plan_of(tmp_path / "c.yml")
    (tmp_path / "c.yml").write_bytes(b"a: \xff")
    with pytest.raises(BadInput, match="not UTF-8 at offset 3"):
        plan_of(tmp_path / "c.yml")
    (tmp_path / "c.yml").write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(LimitExceeded):
        plan_of(tmp_path / "c.yml")
    with pytest.raises(CasstoreError):
        plan_of(tmp_path)


def test_two_repositories_never_become_one() -> None:
    plan = plan_of(["a.example/x:1", "b.example/x:2"])
    with pytest.raises(Conflict, match=r"both a\.example/x and b\.example/x would go to x"):
        check_targets(plan)
    one, other = plan.wanted
    check_targets(type(plan)((one, Wanted(other.repository, other.choice, target="y"))))


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("1.2.3", "1.2.3 v1.2.3 1.2.3+5", "1.2.4 1.2.3-rc1"),
        ("1.2", "1.2.0 1.2 1.2.9", "1.3.0 1.1.9"),
        ("1", "1.0 1.9.9", "2 0.9"),
        (">=1.2, <2", "1.2 1.9.9", "1.1.9 2.0.0 1.5.0-rc1 latest 1.2.3.4"),
        (">=1.2 <2", "1.2 1.9.9", "2.0.0"),
        ("=>1.2", "1.2 3", "1.1"),
        (">=1.2.0-rc1 <2.0.0-0", "1.2.0-rc1 1.2.0-rc2 1.2.0", "1.2.0-beta"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1.2", "1.2.0 1.2.9", "1.3"),
        ("~1", "1.0 1.9", "2"),
        ("^1.2.3", "1.2.3 1.9", "2.0.0 1.2.2"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.9.9", "1.0.0"),
        ("1.2 - 1.4.5", "1.2.0 1.4.5", "1.4.6 1.1"),
        ("1.x", "1.0 1.9", "2.0"),
        ("*", "0.0.1 99", "latest 1.0.0-rc1"),
        (">1.2", "1.3.0 2", "1.2.0 1.2.9"),
        ("<=1.2", "1.2.9 0.1", "1.3"),
        ("!=1.2.3", "1.2.4", "1.2.3"),
        ("!=1.2", "1.3.0", "1.2.0 1.2.9"),
        ("1.2 || >=3", "1.2.5 3.1", "2.0"),
    ],
)
def test_constraints(text: str, yes: str, no: str) -> None:
    found = constraint(text, "x")
    assert [tag for tag in yes.split() if not found.allows(tag)] == []
    assert [tag for tag in no.split() if found.allows(tag)] == []


@pytest.mark.parametrize("text", ["", "||", "1.2.3.4", ">", "a", "1 ||", ">=1 y", "^-1", "1" * 1001])
def test_what_is_no_constraint(text: str) -> None:
    with pytest.raises(BadInput):
        constraint(text, "x")


def test_the_order_of_versions() -> None:
    tags = "edge latest 0.9 1.2-rc1 1.2 1.2-alpine 1.2.1 v1.10 1.11-beta.2 1.11-beta.10 1.11 2 2026.01.02"
    assert sorted(sorted(tags.split()), key=order_of) == tags.split()


def test_the_newest() -> None:
    by_version = Choice(exclude=("latest",), newest=2)
    signature = "sha256-" + "0" * 64 + ".sig"
    assert chosen(by_version, "1.9", "latest", "1.10", signature, "1.2") == ["1.10", "1.9"]
    assert chosen(Choice(), signature) == [signature]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    dated = [(tag, start + timedelta(days=day)) for tag, day in (("a", 3), ("b", 1), ("c", 2))]
    by_date = Choice(newest=2, order="created")
    assert by_date.by_date([*dated, ("d", None)]) == ["a", "c"]
    assert Choice(since=start + timedelta(days=2)).by_date([*dated, ("d", None)]) == ["a", "c"]
    assert Choice(since=start + timedelta(days=2), newest=1).by_date(dated) == ["c"]  # the newer version


def test_what_a_name_on_the_command_line_means() -> None:
    assert of_reference("busybox").choice == Choice()
    assert of_reference("busybox:1").choice == Choice(exact=("1",))
