"""What the image commands print, row by row, as a user sees it: a store, commands on it, the last one's output.

`{A}` stands for the ID of image A, `{a}` for its first twelve digits, `{A0}` for the chainID of its lowest layer,
`{ago}` for the age of what was made on 1 May 2001. `because`: why docker's answer is not ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import sample
from sample import entry, files

from casstore.digest import Digest
from casstore.oci.ids import chain_ids

MADE = "2001-05-01T00:00:00Z"
STEPS = [
    {"created": "2001-04-30T22:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:" + "0123456789" * 4 + " in / "},
    {"created": "2001-05-01T00:00:00Z", "created_by": "ENV A=b", "comment": "why", "empty_layer": True},
    {"created": MADE, "created_by": "RUN\tmake"},
]


def _odd_sizes() -> bytes:
    """A layer of which only some entries count: 700 bytes, a link of 4, a hard link once more for nothing."""
    return sample.tar(
        [
            entry("d", kind=b"5"),
            entry("d/file", b"f" * 700),
            entry("d/hard", kind=b"1", linkname="d/file"),
            entry("d/soft", kind=b"2", linkname="file"),
            entry("d/device", kind=b"3", devmajor=1, devminor=3),
            entry("d/.wh.gone"),
            entry("d/empty"),
        ]
    )


BELOW = files({"below": b"b" * 1000})


def _alike() -> tuple[sample.Image, sample.Image]:
    """Two images whose IDs begin with the same four digits; the lesser ID first."""
    seen: dict[str, sample.Image] = {}
    for number in range(10_000):
        one = sample.image("alike", [f"like:{number}"], [BELOW], comment=str(number))
        other = seen.setdefault(one.id[7:11], one)
        if other is not one:
            return (one, other) if one.id < other.id else (other, one)
    raise AssertionError("no two of ten thousand begin alike")


A = sample.image(
    "a",
    ["a:1", "a:2", "team/a:latest"],
    [files({"x": b"x" * 2000}), files({"y": b"y" * 3000})],
    created=MADE,
    history=STEPS,
    author="somebody",
    comment="for tests",
    docker_version="20.10.24",
    config={"Cmd": ["/bin/sh"], "Env": ["A=b"], "Labels": {"k": "v", "in": "a"}, "ExposedPorts": {"80/tcp": {}}},
)
B = sample.image("b", ["b:1"], [files({"z": b"z" * 5000})], created=None, history=None, config=None)
BASE = sample.image("base", ["base:1"], [BELOW], created="2001-01-01T00:00:00Z", history=STEPS[:1])
CHILD = sample.image(
    "child", ["child:1"], [BELOW, files({"c": b"c" * 100})], created="2001-02-01T00:00:00Z", history=STEPS[::2]
)
NAMELESS = sample.image(
    "n", [], [files({"n": b"n" * 686})], created="2001-03-01T00:00:00Z", config={"Labels": {"k": "w"}}
)
SIZES = sample.image("sizes", ["sizes:1"], [_odd_sizes()], created=MADE)
ZERO = sample.image("zero", ["zero:1"], [b""], created="0001-01-01T00:00:00Z")
SAME = sample.image("same", ["a:0", "z:0"], [files({"s": b"s"})], created=MADE)
LIKE, ALIKE = _alike()
IMAGES = {
    "A": A,
    "B": B,
    "BASE": BASE,
    "CHILD": CHILD,
    "N": NAMELESS,
    "SIZES": SIZES,
    "ZERO": ZERO,
    "SAME": SAME,
    "LIKE": LIKE,
    "ALIKE": ALIKE,
}


def archive(names: tuple[str, ...]) -> bytes:
    """A docker archive of these images, CHILD a child of BASE."""
    listed = [IMAGES[name] for name in names]
    members = sample.docker_members(listed)
    items = json.loads(members["manifest.json"])
    if {"BASE", "CHILD"} <= set(names):
        items[names.index("CHILD")]["Parent"] = BASE.id
    return sample.plain_tar(members | {"manifest.json": json.dumps(items).encode()})


@cache
def words() -> dict[str, str]:
    """What stands for the names in braces."""
    found = {}
    for name, one in IMAGES.items():
        found |= {name: one.id, name.lower(): one.id[7:19], f"{name}hex": one.id[7:], f"{name}UP": one.id[7:19].upper()}
        chains = chain_ids([Digest.parse(each) for each in one.diff_ids])
        found |= {f"{name}{depth}": str(chain) for depth, chain in enumerate(chains)}
    days = (datetime.now(UTC) - datetime.fromisoformat(MADE)).days
    found |= {"begin": LIKE.id[7:11], "liketag": LIKE.tags[0]}
    return found | {"ago": f"{days // 365} years ago", "long": "t" * 129, "hex": "0" * 64}


def filled(text: str) -> str:
    for name, value in words().items():
        text = text.replace(f"{{{name}}}", value)
    return text


@dataclass(frozen=True)
class Row:
    """`given`: images that are loaded; `before`: commands that must succeed; `argv`: the command of the row. `sort`:
    docker's lines are in no order."""

    name: str
    given: tuple[str, ...]
    argv: tuple[str, ...]
    out: str = ""
    err: str = ""
    code: int = 0
    before: tuple[tuple[str, ...], ...] = ()
    because: str = ""
    stdin: str = ""
    sort: bool = False

    def __str__(self) -> str:
        return self.name


ALL = ("A", "B", "BASE", "CHILD", "N")
LIST = ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
HEADER = "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
NO_DIGEST = "docker knows the digests of what it pulled or pushed only; here a tag names a manifest"
PARENTS = (("rmi", "base:1"),)


def _refused(name: str, argv: tuple[str, ...], err: str, code: int = 1, **more: object) -> Row:
    return Row(name, ALL, argv, "", err, code, **more)  # type: ignore[arg-type]


LISTS = [
    Row(
        "a table, newest first, without a time last",
        ALL,
        ("images",),
        "REPOSITORY   TAG       IMAGE ID       CREATED        SIZE\n"
        "a            1         {a}   {ago}   5kB\n"
        "a            2         {a}   {ago}   5kB\n"
        "team/a       latest    {a}   {ago}   5kB\n"
        "<none>       <none>    {n}   {ago}   686B\n"
        "child        1         {child}   {ago}   1.1kB\n"
        "base         1         {base}   {ago}   1kB\n"
        "b            1         {b}   N/A            5kB\n",
        sort=True,
    ),
    Row("nothing", (), ("images",), HEADER),
    Row("an ID for each tag", ("A",), ("images", "-q"), "{a}\n" * 3),
    Row("IDs in full", ("A",), ("images", "-q", "--no-trunc"), "{A}\n" * 3),
    Row("no truncation", ("B",), ("images", "--no-trunc", "--format", "{{.ID}}"), "{B}\n"),
    Row(
        "ties by name",
        ("SAME", "SIZES", "A"),
        ("images", "--format", "{{.Repository}}:{{.Tag}}"),
        "a:0\na:1\na:2\nsizes:1\nteam/a:latest\nz:0\n",
        because="docker leaves ties in the order of a map",
    ),
    Row("sizes of layers", ("SIZES",), ("images", "--format", "{{.Size}}"), "704B\n"),
    Row("a layer of no bytes, a time of year 1", ("ZERO",), ("images", "--format", "table {{.Size}}"), "SIZE\n0B\n"),
    Row(
        "no age in a template",
        ("ZERO",),
        ("images", "--format", "{{.CreatedSince}}"),
        "N/A\n",
        because="docker says N/A in its table only",
    ),
    Row("digests", ("B",), ("images", "--digests", "--format", "{{len .Digest}}"), "71\n", because=NO_DIGEST),
    Row("a parent without a name is hidden", ("BASE", "CHILD"), LIST, "child:1 {child}\n", before=PARENTS),
    Row(
        "and shown with -a",
        ("BASE", "CHILD"),
        (*LIST, "-a"),
        "child:1 {child}\n<none>:<none> {base}\n",
        before=PARENTS,
    ),
    Row("dangling", ALL, (*LIST, "-f", "dangling=true"), "<none>:<none> {n}\n"),
    Row("not dangling", ("B", "N"), (*LIST, "-f", "dangling=false"), "b:1 {b}\n"),
    Row("a label", ("A", "N", "B"), ("images", "-q", "-f", "label=k"), "{a}\n" * 3 + "{n}\n"),
    Row("a label's value", ("A", "N", "B"), ("images", "-q", "-f", "label=k=w"), "{n}\n"),
    Row("labels, all of them", ("A", "N"), ("images", "-q", "-f", "label=k", "-f", "label=in=b")),
    Row("before", ALL, (*LIST, "-f", "before=child:1"), "base:1 {base}\nb:1 {b}\n"),
    Row("since", ALL, (*LIST, "-f", "since=child"), "", "Error: No such image: child\n", 1),
    Row("since, by ID", ALL, ("images", "-q", "-f", "since={child}"), "{a}\n" * 3 + "{n}\n"),
    Row(
        "references, any of them",
        ALL,
        (*LIST, "-f", "reference=b", "-f", "reference=team/*"),
        "team/a:latest {a}\nb:1 {b}\n",
    ),
    Row("a name", ALL, (*LIST, "a"), "a:1 {a}\na:2 {a}\n"),
    Row("a name and tag", ALL, (*LIST, "a:2"), "a:2 {a}\n"),
    Row("a pattern of tags", ALL, (*LIST, "a:*"), "a:1 {a}\na:2 {a}\n"),
    Row("a star over name and tag", ("A", "B"), (*LIST, "*1"), "a:1 {a}\nb:1 {b}\n"),
    Row("a pattern of a namespace", ALL, (*LIST, "*/*"), "team/a:latest {a}\n"),
    Row("a class", ALL, (*LIST, "[^a]:1"), "b:1 {b}\n"),
    Row("no such name", ALL, ("images", "nosuch"), HEADER),
    _refused("a bad pattern", ("images", "["), "Error: [: syntax error in pattern\n"),
    _refused("a bad reference filter", ("images", "-f", "reference=["), "Error: [: syntax error in pattern\n"),
    _refused("no such filter", ("images", "-f", "foo=1"), "Error: Invalid filter 'foo'\n"),
    _refused("dangling maybe", ("images", "-f", "dangling=maybe"), "Error: Invalid filter 'dangling=[maybe]'\n"),
    _refused("before nothing", ("images", "-f", "before=nosuch"), "Error: No such image: nosuch\n"),
    _refused(
        "a filter without value",
        ("images", "-f", "nothing"),
        "Error: bad format of filter (expected name=value)\n",
        125,
    ),
]

HISTORIES = [
    Row(
        "a table",
        ("A",),
        ("history", "a:1"),
        "IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT\n"
        "{a}   {ago}   RUN make                                        3kB       \n"
        "<missing>      {ago}   ENV A=b                                         0B        why\n"
        "<missing>      {ago}   /bin/sh -c #(nop) ADD file:01234567890123456…   2kB       \n",
    ),
    Row("IDs", ("A",), ("history", "-q", "a:1"), "{a}\n<missing>\n<missing>\n"),
    Row("IDs in full", ("A",), ("history", "-q", "--no-trunc", "a:1"), "{A}\n<missing>\n<missing>\n"),
    Row(
        "numbers for programs",
        ("A",),
        ("history", "-H=false", "--format", "{{.CreatedSince}} {{.CreatedAt}} {{.Size}} {{.ID}}", "a:1"),
        "2001-05-01T00:00:00Z 2001-05-01T00:00:00Z 3000 {a}\n"
        "2001-05-01T00:00:00Z 2001-05-01T00:00:00Z 0 <missing>\n"
        "2001-04-30T22:00:00Z 2001-04-30T22:00:00Z 2000 <missing>\n",
    ),
    Row(
        "commands in full",
        ("A",),
        ("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "a:1"),
        "RUN make|\nENV A=b|why\n/bin/sh -c #(nop) ADD file:" + "0123456789" * 4 + " in / |\n",
    ),
    Row("parents have their IDs", ("BASE", "CHILD"), ("history", "-q", "child:1"), "{child}\n{base}\n"),
    Row("no history", ("B",), ("history", "b:1"), "IMAGE     CREATED   CREATED BY   SIZE      COMMENT\n"),
    Row("by the beginning of an ID", ("B",), ("history", "-q", "{b}")),
    _refused("no such image", ("history", "nosuch"), "Error: No such image: nosuch\n"),
    _refused(
        "a bad name", ("history", "Foo"), 'Error: "Foo": invalid reference format: repository name must be lowercase\n'
    ),
]

INSPECTIONS = [
    Row(
        "the usual fields",
        ("A",),
        (
            "inspect",
            "-f",
            "{{.Id}} {{.RepoTags}} {{.Created}} {{.Author}} {{.Comment}} {{.DockerVersion}} {{.Os}}/"
            "{{.Architecture}} {{.Size}} {{.VirtualSize}} {{.Parent}}.",
            "a:1",
        ),
        "{A} [a:1 a:2 team/a:latest] 2001-05-01T00:00:00Z somebody for tests 20.10.24 linux/amd64 5000 5000 .\n",
    ),
    Row(
        "the configuration",
        ("A",),
        ("inspect", "-f", "{{json .Config.Env}} {{json .Config.Labels}}", "a:1"),
        '["A=b"] {"in":"a","k":"v"}\n',
    ),
    Row(
        "layers",
        ("A",),
        ("inspect", "-f", "{{.RootFS.Type}} {{json .RootFS.Layers}}", "a:1"),
        "layers " + json.dumps(A.diff_ids, separators=(",", ":")) + "\n",
    ),
    Row(
        "no configuration, no time",
        ("B",),
        ("inspect", "-f", "{{json .Config}} {{.Created}}", "b:1"),
        "null 0001-01-01T00:00:00Z\n",
    ),
    Row("several", ("A", "B"), ("inspect", "-f", "{{.Id}}", "b:1", "{a}"), "{B}\n{A}\n"),
    Row("a parent", ("BASE", "CHILD"), ("inspect", "-f", "{{.Parent}}", "child:1"), "{BASE}\n"),
    Row("an image that has no name", ("N",), ("inspect", "-f", "{{json .RepoTags}}", "{n}"), "[]\n"),
    Row("of kind image", ("B",), ("inspect", "--type", "image", "-f", "{{.Id}}", "b:1"), "{B}\n"),
    Row("no such object", ALL, ("inspect", "nosuch"), "[]\n", "Error: No such object: nosuch\n", 1),
    Row(
        "no such image",
        ALL,
        ("image", "inspect", "nosuch", "none"),
        "[]\n",
        "Error: No such image: nosuch\nError: No such image: none\n",
        1,
    ),
    Row(
        "no such container",
        ALL,
        ("inspect", "--type", "container", "a:1"),
        "[]\n",
        "Error: No such container: a:1\n",
        1,
    ),
    Row(
        "one of two",
        ("B",),
        ("inspect", "-f", "{{.Id}}", "nosuch", "b:1"),
        "{B}\n",
        "Error: No such object: nosuch\n",
        1,
    ),
    Row("none, by template", ALL, ("inspect", "-f", "{{.Id}}", "nosuch"), "\n", "Error: No such object: nosuch\n", 1),
    Row("the empty name", ALL, ("inspect", ""), "[]\n", "Error: No such object: \n", 1),
    _refused("no such kind", ("inspect", "--type", "foo", "a:1"), 'Error: "foo" is not a valid value for --type\n'),
    Row("an ID in full", ("B",), ("inspect", "-f", "{{.Id}}", "{Bhex}"), "{B}\n"),
    Row("the beginning of an ID with its algorithm", ("B",), ("inspect", "-f", "{{.Id}}", "sha256:{b}"), "{B}\n"),
    Row(
        "a name beats the beginning of an ID",
        ("A", "B"),
        ("inspect", "-f", "{{.Id}}", "{b}"),
        "{A}\n",
        before=(("tag", "a:1", "{b}:latest"),),
    ),
]

_AMBIGUOUS = 'Error: ambiguous image ID prefix "{begin}": matches {like}, {alike}\n'
_UNLIKE = "docker says that there is no such image"
AMBIGUITIES = [
    Row(
        f"{argv[0]} of the beginning of two IDs",
        ("LIKE", "ALIKE"),
        (*argv, "{begin}"),
        "[]\n" if argv[0] == "inspect" else "",
        _AMBIGUOUS,
        1,
        because=_UNLIKE,
    )
    for argv in (("history",), ("inspect",), ("rmi",), ("rmi", "-f"))
]
AMBIGUITIES.append(
    Row(
        "a name beats the beginning of two IDs",
        ("LIKE", "ALIKE"),
        ("inspect", "-f", "{{.Id}}", "{begin}"),
        "{LIKE}\n",
        before=(("tag", "{liketag}", "{begin}:latest"),),
    )
)

TAGGED = ("inspect", "-f", "{{json .RepoTags}}")
_BAD_TARGET = 'Error: Error parsing reference: "%s" is not a valid repository/tag: invalid reference format'
TAGS = [
    *(
        Row(f"{given} is lib", ("B",), (*TAGGED, "lib:2"), '["b:1","lib:2"]\n', before=(("tag", "b:1", f"{given}:2"),))
        for given in ("lib", "docker.io/lib", "index.docker.io/lib", "docker.io/library/lib")
    ),
    Row(
        "another host's library is its own",
        ("B",),
        (*TAGGED, "b:1"),
        '["b:1","registry.hub.docker.com/library/x:latest"]\n',
        before=(("tag", "b:1", "registry.hub.docker.com/library/x"),),
    ),
    Row(
        "upper case in a tag", ("B",), (*TAGGED, "foo:BAR"), '["b:1","foo:BAR"]\n', before=(("tag", "b:1", "foo:BAR"),)
    ),
    Row("two underscores", ("B",), (*TAGGED, "a__b"), '["a__b:latest","b:1"]\n', before=(("tag", "b:1", "a__b"),)),
    *(
        _refused(f"tag {target[:9]}", ("tag", "a:1", target), f"{_BAD_TARGET % target}\n")
        for target in ("a___b", "a//b", "a:b:c", "a:{long}", "", "a b")
    ),
    *(
        _refused(
            f"tag {target}", ("tag", "a:1", target), f"{_BAD_TARGET % target}: repository name must be lowercase\n"
        )
        for target in ("Foo:x", "host.com/UP:1")
    ),
    _refused(
        "tag LOCAL/x", ("tag", "a:1", "LOCAL/x"), f"{_BAD_TARGET % 'LOCAL/x'}: repository name must be lowercase\n"
    ),
    _refused(
        "tag 64 hex",
        ("tag", "a:1", "{hex}"),
        'Error: Error parsing reference: "{hex}" is not a valid repository/tag: invalid repository name ({hex}),'
        " cannot specify 64-byte hexadecimal strings\n",
    ),
    _refused(
        "tag a digest",
        ("tag", "a:1", "x@sha256:{hex}"),
        "Error: x@sha256:{hex}: refusing to create a tag with a digest reference\n",
    ),
    _refused(
        "tag sha256",
        ("tag", "a:1", "sha256:abc"),
        "Error: sha256:abc: refusing to create an ambiguous tag using digest algorithm as name\n",
    ),
    _refused("tag of nothing", ("tag", "nosuch", "x:1"), "Error: No such image: nosuch\n"),
    Row(
        "a tag that moves leaves an image without a name",
        ("A", "B"),
        LIST,
        "a:1 {a}\na:2 {a}\nb:1 {a}\nteam/a:latest {a}\n<none>:<none> {b}\n",
        before=(("tag", "a:1", "b:1"),),
        sort=True,
    ),
]

_MULTIPLE = "conflict: unable to delete {a} (must be forced) - image is referenced in multiple repositories"
_CHILDREN = "Error: conflict: unable to delete {base} (cannot be forced) - image has dependent child images\n"
_CHILD_GONE = "Untagged: child:1\nDeleted: {CHILD}\nDeleted: {CHILD1}\n"
REMOVALS = [
    Row("by tag, others remain", ("A",), ("rmi", "a:1"), "Untagged: a:1\n"),
    Row("by tag, the last", ("B",), ("rmi", "b:1"), "Untagged: b:1\nDeleted: {B}\nDeleted: {B0}\n"),
    Row(
        "layers from the top",
        ("A",),
        ("rmi", "-f", "{a}"),
        "Untagged: a:1\nUntagged: a:2\nUntagged: team/a:latest\nDeleted: {A}\nDeleted: {A1}\nDeleted: {A0}\n",
    ),
    Row("by ID", ("B",), ("rmi", "{B}"), "Untagged: b:1\nDeleted: {B}\nDeleted: {B0}\n"),
    Row("without a name", ("N",), ("rmi", "{n}"), "Deleted: {N}\nDeleted: {N0}\n"),
    _refused("by ID, several names", ("rmi", "{a}"), f"Error: {_MULTIPLE}\n"),
    _refused("has children", ("rmi", "{base}"), _CHILDREN),
    _refused("has children, forced", ("rmi", "-f", "{base}"), _CHILDREN),
    Row("a parent's name", ALL, ("rmi", "base:1"), "Untagged: base:1\n"),
    Row("a child of a named parent", ("BASE", "CHILD"), ("rmi", "child:1"), _CHILD_GONE),
    Row(
        "a child, and with it its parent",
        ("BASE", "CHILD"),
        ("rmi", "child:1"),
        _CHILD_GONE + "Deleted: {BASE}\nDeleted: {BASE0}\n",
        before=PARENTS,
    ),
    Row("a child, not its parent", ("BASE", "CHILD"), ("rmi", "--no-prune", "child:1"), _CHILD_GONE, before=PARENTS),
    Row(
        "which is seen then",
        ("BASE", "CHILD"),
        LIST,
        "<none>:<none> {base}\n",
        before=(*PARENTS, ("rmi", "--no-prune", "child:1")),
    ),
    Row(
        "a parent after its child",
        ("BASE", "CHILD"),
        ("rmi", "base:1"),
        "Untagged: base:1\nDeleted: {BASE}\nDeleted: {BASE0}\n",
        before=(("rmi", "child:1"),),
    ),
    _refused("missing", ("rmi", "nosuch"), "Error: No such image: nosuch\n"),
    _refused("missing, forced", ("rmi", "-f", "nosuch"), "Error: No such image: nosuch\n", 0),
    Row(
        "missing and not",
        ("B",),
        ("rmi", "nosuch", "b:1", "none:2"),
        "Untagged: b:1\nDeleted: {B}\nDeleted: {B0}\n",
        "Error: No such image: nosuch\nError: No such image: none:2\n",
        1,
    ),
    _refused(
        "the empty name",
        ("rmi", ""),
        'Error: "": invalid reference format\n',
        because="docker asks for an image of no name; here the reference is what is wrong",
    ),
    _refused(
        "upper-case hex",
        ("rmi", "{BUP}"),
        'Error: "{BUP}": invalid reference format: repository name must be lowercase\n',
    ),
    _refused("no tag after the colon", ("rmi", "a:"), 'Error: "a:": invalid reference format\n'),
    _refused("white space", ("rmi", "a b"), 'Error: "a b": invalid reference format\n'),
]

_ASKED = "Are you sure you want to continue? [y/N] "
_DANGLING = "WARNING! This will remove all dangling images.\n" + _ASKED
_EVERYTHING = "WARNING! This will remove all images without at least one container associated to them.\n" + _ASKED
_NOTHING = "Total reclaimed space: 0B\n"
_ONE = "Deleted Images:\ndeleted: {N}\ndeleted: {N0}\n\nTotal reclaimed space: 686B\n"
PRUNE = ("image", "prune", "-f")
PRUNES = [
    Row("asked, and no answer", ALL, ("image", "prune"), _DANGLING + _NOTHING),
    Row("asked about all", ALL, ("image", "prune", "-a"), _EVERYTHING + _NOTHING, stdin="n\n"),
    Row("answered", ALL, ("image", "prune"), _DANGLING + _ONE, stdin="y\n"),
    Row("without a name", ALL, PRUNE, _ONE),
    Row("nothing to do", ("A",), PRUNE, _NOTHING),
    Row(
        "all",
        ("A",),
        (*PRUNE, "-a"),
        "Deleted Images:\nuntagged: a:1\nuntagged: a:2\nuntagged: team/a:latest\n"
        "deleted: {A}\ndeleted: {A1}\ndeleted: {A0}\n\nTotal reclaimed space: 5kB\n",
    ),
    Row(
        "a parent goes with its child",
        ("BASE", "CHILD"),
        (*PRUNE, "-a"),
        "Deleted Images:\nuntagged: child:1\ndeleted: {CHILD}\ndeleted: {CHILD1}\n"
        "deleted: {BASE}\ndeleted: {BASE0}\n\nTotal reclaimed space: 1.1kB\n",
        before=PARENTS,
    ),
    Row("a parent without a name is no image without a name", ("BASE", "CHILD"), PRUNE, _NOTHING, before=PARENTS),
    Row(
        "dangling=false is all",
        ("B",),
        (*PRUNE, "--filter", "dangling=false"),
        "Deleted Images:\nuntagged: b:1\ndeleted: {B}\ndeleted: {B0}\n\nTotal reclaimed space: 5kB\n",
    ),
    Row("a label", ("A", "N"), (*PRUNE, "-a", "--filter", "label=k=w"), _ONE),
    Row("labels, all of them", ("N",), (*PRUNE, "--filter", "label=k", "--filter", "label=x"), _NOTHING),
    Row("spared by a label", ("N",), (*PRUNE, "--filter", "label!=k"), _NOTHING),
    Row("not spared by another value", ("N",), (*PRUNE, "--filter", "label!=k=x"), _ONE),
    Row(
        "spared by one of two labels",
        ("N",),
        (*PRUNE, "--filter", "label!=k", "--filter", "label!=x"),
        _NOTHING,
        because="docker deletes what matches one of two label!= filters",
    ),
    Row(
        "an image without configuration has no label",
        ("B",),
        (*PRUNE, "-a", "--filter", "label=k"),
        _NOTHING,
        because="docker's label filters pass over images without a configuration",
    ),
    Row("until before it was made", ("N",), (*PRUNE, "--filter", "until=2001-02-28T00:00:00Z"), _NOTHING),
    Row("until after it was made", ("N",), (*PRUNE, "--filter", "until=2001-03-02"), _ONE),
    Row("until some time ago", ("N",), (*PRUNE, "--filter", "until=1h30m"), _ONE),
    Row("until seconds since 1970", ("N",), (*PRUNE, "--filter", "until=983404799"), _NOTHING),
    Row("until the future", ("N",), (*PRUNE, "--filter", "until=4102444800"), _ONE),
    _refused(
        "until garbage",
        (*PRUNE, "--filter", "until=garbage"),
        'Error: failed to parse value as time or duration: "garbage"\n',
    ),
    _refused(
        "until twice",
        (*PRUNE, "--filter", "until=1h", "--filter", "until=2h"),
        "Error: more than one until filter specified\n",
    ),
    _refused("no such filter", (*PRUNE, "--filter", "foo=1"), "Error: Invalid filter 'foo'\n"),
    _refused(
        "dangling maybe",
        (*PRUNE, "--filter", "dangling=maybe"),
        "Error: Invalid filter 'dangling=[maybe]'\n",
        because="docker takes it for true",
    ),
    _refused(
        "a filter without value",
        (*PRUNE, "--filter", "nothing"),
        "Error: bad format of filter (expected name=value)\n",
        125,
    ),
    Row(
        "only planned",
        ALL,
        ("image", "prune", "--dry-run"),
        _ONE + "Nothing was changed: this was a dry run.\n",
        because="docker has no such plan",
    ),
]

TABLE = {
    "images": LISTS,
    "history": HISTORIES,
    "inspect": INSPECTIONS,
    "ambiguous": AMBIGUITIES,
    "tag": TAGS,
    "rmi": REMOVALS,
    "prune": PRUNES,
}
