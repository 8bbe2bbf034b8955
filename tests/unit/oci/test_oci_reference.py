"""Every row of the grammar table, and what `parse` gives back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import InvalidReference
from casstore.oci import reference
from casstore.oci.reference import Reference, parse, parse_repo_tag, parse_target

HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "domain", "path", "familiar"),
    [
        ("docker.io/lib", "docker.io", "library/lib", "lib"),
        ("index.docker.io/lib", "docker.io", "library/lib", "lib"),
        ("docker.io/library/lib", "docker.io", "library/lib", "lib"),
        ("index.docker.io/library/lib", "docker.io", "library/lib", "lib"),
        ("lib", "docker.io", "library/lib", "lib"),
        ("me/lib", "docker.io", "me/lib", "me/lib"),
        ("library/a/b", "docker.io", "library/a/b", "library/a/b"),
        (
            "registry.hub.docker.com/library/x",
            "registry.hub.docker.com",
            "library/x",
            "registry.hub.docker.com/library/x",
        ),
        ("localhost/x", "localhost", "x", "localhost/x"),
        ("localhost:5000/x/y", "localhost:5000", "x/y", "localhost:5000/x/y"),
        ("[fd00:1:2::3]:5000/x", "[fd00:1:2::3]:5000", "x", "[fd00:1:2::3]:5000/x"),
        ("[::1]/x", "[::1]", "x", "[::1]/x"),
        ("Example.COM/x", "Example.COM", "x", "Example.COM/x"),
        ("a__b", "docker.io", "library/a__b", "a__b"),
        ("a---b.c_d", "docker.io", "library/a---b.c_d", "a---b.c_d"),
        ("docker.io/localhost/x", "docker.io", "localhost/x", "docker.io/localhost/x"),
        ("docker.io/a.b/c", "docker.io", "a.b/c", "docker.io/a.b/c"),
        (f"library/{HEX}", "docker.io", f"library/{HEX}", f"library/{HEX}"),
    ],
)
def test_names_are_normalised(text: str, domain: str, path: str, familiar: str) -> None:
    found = parse(text)
    assert (found.domain, found.path, found.tag, found.digest) == (domain, path, "", None)
    assert found.repository == f"{domain}/{path}"
    assert found.familiar() == familiar == found.familiar_name
    assert parse(str(found)) == found == parse(familiar)
    assert found.or_latest().familiar() == f"{familiar}:latest"


@pytest.mark.parametrize("tag", ["BAR", "v1.0-rc_1", "_x", "t" * 128])
def test_tags(tag: str) -> None:
    assert parse(f"foo:{tag}").tag == tag
    assert parse(f"foo:{tag}").or_latest().tag == tag
    assert parse("foo").with_tag(tag).familiar() == f"foo:{tag}"


@pytest.mark.parametrize(
    "text",
    [
        "a___b",
        "-a:b",
        "a//b",
        "a:b:c",
        "x:" + "t" * 129,
        "",
        ":x",
        "/x",
        "x/",
        "a b",
        "x:\n",
        "é",
        "x@y",
        "a.b/",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_target(text)
    quoted = f'"{text}"'.replace("\n", "\\n")
    assert str(caught.value) == (
        f"Error parsing reference: {quoted} is not a valid repository/tag: invalid reference format"
    )


@pytest.mark.parametrize("text", ["Foo:x", "LOCAL/x", "host.com/UP:1", "Foo", "me/Foo@" + DIGEST])
def test_upper_case(text: str) -> None:
    with pytest.raises(InvalidReference, match="repository name must be lowercase"):
        parse(text)
    with pytest.raises(InvalidReference) as caught:
        parse_target(text)
    assert str(caught.value) == (
        f'Error parsing reference: "{text}" is not a valid repository/tag: '
        "invalid reference format: repository name must be lowercase"
    )


def test_an_id_is_no_name() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(HEX)
    assert str(caught.value) == (f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
    assert parse(HEX[:-1]).path == f"library/{HEX[:-1]}"


def test_path_length() -> None:
    assert parse("docker.io/me/" + "a" * 252).path == "me/" + "a" * 252
    with pytest.raises(InvalidReference, match="must not be more than 255 characters"):
        parse("docker.io/me/" + "a" * 253)
    # the domain does not count
    assert parse("a" * 60 + ".example.com/" + "b" * 255).path == "b" * 255


def test_digests() -> None:
    found = parse(f"x:v1@{DIGEST}")
    assert found == Reference("docker.io", "library/x", "v1", Digest.parse(DIGEST))
    assert found.familiar() == f"x:v1@{DIGEST}"
    assert parse(f"x@{DIGEST}").or_latest().tag == ""
    assert parse("x@sha512:" + "0" * 128).digest == Digest("sha512", bytes(64))


@pytest.mark.parametrize(
    ("digest", "problem"),
    [
        ("sha256:" + "a" * 63, "invalid checksum digest length"),
        ("sha256:" + "A" * 64, "invalid checksum digest length"),
        ("md5:" + "a" * 32, "unsupported digest algorithm"),
        ("sha256:abc", "invalid reference format"),
    ],
)
def test_bad_digests(digest: str, problem: str) -> None:
    with pytest.raises(InvalidReference, match=problem):
        parse(f"x@{digest}")


def test_targets_of_tag() -> None:
    assert parse_target("x").tag == "latest"
    with pytest.raises(InvalidReference, match="refusing to create a tag with a digest reference"):
        parse_target(f"x@{DIGEST}")
    with pytest.raises(InvalidReference, match="refusing to create an ambiguous tag using digest algorithm as name"):
        parse_target("sha256:abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", 'invalid tag "foo"'),
        (f"foo@{DIGEST}", f'invalid tag "foo@{DIGEST}"'),
        (f"foo:x@{DIGEST}", f'invalid tag "foo:x@{DIGEST}"'),
        ("Foo:1", '"Foo:1": invalid reference format: repository name must be lowercase'),
        ("", '"": invalid reference format'),
    ],
)
def test_names_in_archives(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_repo_tag(text)
    assert str(caught.value) == message


def test_id_prefixes() -> None:
    assert reference.id_prefix("5b89") == "5b89"
    assert reference.id_prefix("sha256:5b") == "5b"
    assert reference.id_prefix(HEX) == HEX
    for text in ("5B89", "", "sha256:", HEX + "0", "xyz", "sha512:ab"):
        assert reference.id_prefix(text) is None
    assert reference.is_full_id(HEX)
    assert reference.is_full_id(DIGEST)
    assert not reference.is_full_id(HEX[:-1])
    assert reference.is_full_id(f"sha512:{HEX}{HEX}")
    assert not reference.is_full_id(f"{HEX}{HEX}") and not reference.is_full_id(f"sha512:{HEX}")


def test_bad_tag_for_a_repository() -> None:
    with pytest.raises(InvalidReference, match="invalid tag format"):
        parse("x").with_tag("-")


COMPONENT = st.from_regex(re.compile(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", re.ASCII), fullmatch=True)
DOMAIN = st.from_regex(re.compile(r"[a-z0-9]{1,8}(\.[a-z]{1,8}){1,2}(:[0-9]{1,5})?", re.ASCII), fullmatch=True)
TAG = st.from_regex(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", re.ASCII), fullmatch=True)


@given(DOMAIN, st.lists(COMPONENT, min_size=1, max_size=4), TAG)
def test_whatever_the_grammar_allows_survives(domain: str, parts: list[str], tag: str) -> None:
    found = parse(f"{domain}/{'/'.join(parts)}:{tag}")
    assert found.tag == tag
    assert parse(str(found)) == found
    assert parse(found.familiar()) == found


@given(st.text(max_size=300))
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    try:
        found = parse(text)
    except InvalidReference as error:
        assert "\n" not in str(error)
    else:
        assert parse(str(found)) == found
        assert len(found.path) <= reference.MAX_PATH
