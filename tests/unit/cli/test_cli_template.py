"""Templates as Go would run them, where docker's users need them. (tests/interop compares with docker itself.)"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.cli import template as engine
from casstore.cli.docker_types import typed
from casstore.cli.go_values import EMPTY, MISSING, NIL_LIST, NIL_MAP, GoMap, sprintf, text_of
from casstore.cli.template import Template, to_json
from casstore.cli.template_syntax import MAX_DEPTH
from casstore.errors import CasstoreError, LimitExceeded, UsageError

ROW: dict[str, Any] = {
    "ID": "abc",
    "Size": "687kB",
    "stored_bytes": 12,
    "Names": ["a", "b"],
    "Empty": [],
    "Labels": GoMap({"b": "2", "a": "1"}),
    "Config": {"Env": ["A=1", "B=2"], "Labels": GoMap({"x.y": "z"}), "Entrypoint": NIL_LIST, "Volumes": NIL_MAP},
    "Ports": GoMap({"80/tcp": EMPTY}),
    "Flag": True,
    "None": None,
    "Half": 0.5,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }}: {{.Size}}", "abc: 687kB"),
        (r"{{.ID}}\t{{.Size}}\n", "abc\t687kB\n"),
        ("{{.StoredBytes}} {{.stored_bytes}}", "12 12"),
        ("{{json .Labels}}", '{"b":"2","a":"1"}'),
        ("{{json .ID}}", '"abc"'),
        ("{{json .Config.Entrypoint}} {{json .Config.Volumes}}", "null null"),
        ("{{.Labels.a}}", "1"),
        ("{{.Labels.nosuch}}", "<no value>"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Names}}", "[a b]"),
        ("{{.Config.Env}}{{.Config.Entrypoint}}{{.Config.Volumes}}{{.Ports}}", "[A=1 B=2][]map[]map[80/tcp:{}]"),
        ("{{.Flag}} {{.None}} {{.Half}}", "true <nil> 0.5"),
        ('{{join .Names ", "}}', "a, b"),
        ('{{index .Labels "a"}}{{index .Names 1}}{{index .Labels "absent"}}', "1b"),
        ('{{index .Config.Labels "x.y"}}', "z"),
        ('{{(index .Config.Env 0)}} {{index (split (index .Config.Env 1) "=") 0}}', "A=1 B"),
        ("{{.ID | upper}}", "ABC"),
        ("{{.ID | upper | lower | title}}", "Abc"),
        ('{{title "the end_of don\'t"}}', "The End_of Don'T"),
        ("{{truncate .ID 2}}{{truncate .ID 9}}", "ababc"),
        ('[{{pad .ID 1 2}}{{pad "" 1 2}}]', "[ abc  ]"),
        ("{{len .Names}}{{len .ID}}{{len .Labels}}{{len .Config.Entrypoint}}", "2320"),
        ("{{println .ID 5}}", "abc 5\n"),
        ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
        ("{{slice .ID 1}}{{slice .ID 0 2}}{{slice .Names 1 2}}", "bcab[b]"),
        ('{{"a\\"}}b"}}', 'a"}}b'),
        ("{{`}}`}}", "}}"),
        (r'{{"\x41\102\u0043\U00000044\n"}}', "ABCD\n"),
        ("{{'a'}} {{0x1F}} {{-3}} {{1_000}} {{010}} {{1.50}}", "97 31 -3 1000 8 1.5"),
        ("a {{- .ID -}} b", "aabcb"),
        ("a \n{{- /* a comment */ -}}\n b", "ab"),
        ("a{{/* a comment */}}b", "ab"),
        ("{{- 3}}{{-3}}", "3-3"),
        ("}}", "}}"),
        ("{", "{"),
        ("{{if .Flag}}yes{{end}}{{if .None}}no{{end}}", "yes"),
        ("{{if .Empty}}full{{else if .Names}}names{{else}}none{{end}}", "names"),
        ("{{if not .Flag}}{{else}}else{{end}}", "else"),
        ("{{if and .Flag .ID}}both{{end}}{{if or .None .Empty}}either{{end}}", "both"),
        ("{{and .Flag .ID}} {{or .None .ID}} {{and .Empty .Nosuch}}", "abc abc []"),
        ("{{with .ID}}{{.}}{{end}}{{with .None}}{{.}}{{else}}nothing{{end}}", "abcnothing"),
        ("{{with $x := .ID}}{{$x}}{{$.Size}}{{end}}", "abc687kB"),
        ("{{range .Names}}{{.}};{{end}}{{range .Empty}}x{{else}}empty{{end}}", "a;b;empty"),
        ("{{range $i, $e := .Names}}{{if $i}}, {{end}}{{$i}}={{$e}}{{end}}", "0=a, 1=b"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
        ("{{range $p, $_ := .Ports}}{{$p}}{{$_}}{{end}}{{range .Config.Volumes}}x{{end}}", "80/tcp{}"),
        ("{{range $e := .Names}}{{range $.Names}}{{$e}}{{.}} {{end}}{{end}}", "aa ab ba bb "),
        ('{{range .Names}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ('{{range .Names}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
        ('{{$last := ""}}{{range .Names}}{{$last = .}}{{end}}{{$last}}', "b"),
        ("{{range $i, $e := .Names}}{{$i = 7}}{{$i}}{{end}}", "77"),
        ('{{eq .ID "abc"}} {{eq .ID "x" "abc"}} {{ne 1 2}} {{eq .None nil}}', "true true true true"),
        ('{{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1.5 2.5}}', "true true true false"),
        ('{{printf "%s-%d %q %v" .ID 5 .ID .Names}}', 'abc-5 "abc" [a b]'),
        ('{{.ID | printf "%-5s|%5s|" "x"}}', "x    |  abc|"),
        ("{{(.Config).Env}}", "[A=1 B=2]"),
        ("{{$.Config.Labels}}{{with .Config}}{{.Labels}}{{end}}", "map[x.y:z]map[x.y:z]"),
        ("{{true}}{{false}}", "truefalse"),
        ("{{if .Labels.nosuch}}x{{end}}{{range .Labels.nosuch}}x{{end}}.", "."),
    ],
)
def test_renders(source: str, text: str) -> None:
    assert Template(source).render(ROW) == text


def test_escapes_may_stay_as_they_are() -> None:
    assert Template(r"{{.ID}}\n", escapes=False).render(ROW) == r"abc\n"


def test_json_of_the_row_is_one_line() -> None:
    plain = {name: value for name, value in ROW.items() if name != "Config"}
    text = Template("{{json .}}").render(plain)
    assert json.loads(text) == plain
    assert "\n" not in text
    assert to_json({"a": "\u2028<&>"}) == '{"a":"\\u2028<&>"}'


def test_fields_are_checked_without_a_row() -> None:
    titles = {"ID": "IMAGE ID", "Tag": "TAG"}
    for known in (
        "{{slice .ID 0 12}}",
        "{{range .Tag}}{{.Nosuch}}{{end}}{{with .ID}}{{.X}}{{else}}{{.Tag}}{{end}}",
        "x",
    ):
        Template(known).check(titles)
    for unknown in (
        "{{.Nosuch}}",
        "{{if .ID}}{{len .Nosuch}}{{end}}",
        "{{with .ID}}{{$.Nosuch}}{{end}}",
        "{{(.Nosuch).X}}",
    ):
        with pytest.raises(UsageError, match="can't evaluate field Nosuch"):
            Template(unknown).check(titles)


def test_titles_stay_as_they_are() -> None:
    header = Template("{{json .ID}} {{lower .ID}} {{truncate .ID 2}} {{slice .ID 0 12}} {{pad .ID 1 0}}", header=True)
    assert header.render({"ID": "IMAGE ID"}) == "IMAGE ID IMAGE ID IMAGE ID IMAGE ID  IMAGE ID"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{", "unclosed action"),
        ("a\nb{{.ID", "unclosed action"),
        ('{{"}}', "unterminated quoted string"),
        ("{{`}}", "unterminated raw quoted string"),
        ("{{'}}", "unterminated character constant"),
        ("{{'ab'}}", "malformed character constant: 'ab'"),
        (r'{{"\q"}}', "invalid syntax"),
        ("{{}}", "missing value for command"),
        ("{{.ID |}}", "missing value for command"),
        ("{{| .ID}}", "missing value for command"),
        ("{{if}}{{end}}", "missing value for if"),
        ("{{nosuch .ID}}", 'function "nosuch" not defined'),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{$x = 1}}", 'undefined variable "$x"'),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{if .ID}}x", "unexpected EOF"),
        ("x{{end}}", "unexpected {{end}}"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
        ("{{range .Names}}{{else if .ID}}{{end}}", "in else"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{range .Names}}{{else}}{{continue}}{{end}}", "{{continue}} outside {{range}}"),
        ("{{end .ID}}", "unexpected {{end}}"),
        ("{{if .ID}}{{end .ID}}", "unexpected <.ID> in end"),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{.ID)}}", 'unexpected ")" in operand'),
        ("{{( )}}", "missing value for parenthesized pipeline"),
        ('{{"a""b"}}', "in operand"),
        ('{{"a".ID}}', "unexpected <.ID> in operand"),
        ("{{.ID!}}", "unrecognized character in action: U+0021 '!'"),
        ("{{1x}}", 'bad number syntax: "1x"'),
        ("{{099}}", "bad number syntax"),
        ("{{99999999999999999999}}", "integer overflow"),
        ("{{nil}}", "nil is not a command"),
        ("{{/* x}}", "unclosed comment"),
        ("{{/* x */ y}}", "comment ends before closing delimiter"),
        ("{{$a, $b := .Names}}", "too many declarations in command"),
        ('{{template "x"}}', "not supported"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{" + "(" * 101 + "1" + ")" * 101 + "}}", f"more than {MAX_DEPTH} levels deep"),
        ("{{if 1}}" * 101 + "{{end}}" * 101, f"more than {MAX_DEPTH} levels deep"),
    ],
)
def test_what_does_not_parse_is_a_usage_error(source: str, message: str) -> None:
    with pytest.raises(UsageError) as told:
        Template(source)
    line = source.count("\n") + 1
    assert str(told.value).startswith(f"template parsing error: template: :{line}: ") and message in str(told.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Nosuch}}", ':1:2: executing "" at <.Nosuch>: can\'t evaluate field Nosuch (fields: ID, Size'),
        ("\n x{{.Config.Nosuch}}", ':2:11: executing "" at <.Config.Nosuch>: can\'t evaluate field Nosuch'),
        ("{{.ID.More}}", "can't evaluate field More in type string"),
        ("{{.None.More}}", "nil pointer evaluating .None.More"),
        ("{{.ID .Size}}", "can't give argument to non-function .ID"),
        ("{{1 | .ID}}", "can't give argument to non-function .ID"),
        ("{{join .Names}}", "wrong number of args for join: want 2 got 1"),
        ("{{eq .ID}}", "wrong number of args for eq: want at least 2 got 1"),
        ('{{truncate .ID "x"}}', "wrong type of argument for truncate"),
        ("{{truncate .ID -1}}", "error calling truncate: length -1"),
        ("{{index .Names 7}}", "error calling index: index out of range: 7"),
        ('{{index .Names "x"}}', "error calling index: cannot index slice/array with type string"),
        ("{{index .None 1}}", "error calling index: index of nil pointer"),
        ("{{index 1 1}}", "can't index item of type int"),
        ("{{slice .ID 2 1}}", "invalid slice index: 2 > 1"),
        ("{{slice .ID 9}}", "index out of range: 9"),
        ("{{slice .Labels}}", "can't slice item of type map"),
        ("{{len}}", "wrong number of args for len"),
        ("{{len 3}}", "error calling len: len of type int"),
        ("{{upper len}}", "wrong number of args for len"),
        ("{{range .ID}}{{end}}", "range can't iterate over abc"),
        ('{{eq 1 "a"}}', "incompatible types for comparison"),
        ("{{eq .Names .Names}}", "non-comparable type"),
        ("{{lt true false}}", "invalid type for comparison"),
        ("{{lt 1 2.5}}", "incompatible types for comparison"),
        ("{{pad .ID 99999999 0}}", "too wide"),
        ("{{join .ID .ID}}", "expected a list, got string"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(source: str, message: str) -> None:
    with pytest.raises(UsageError) as told:
        Template(source).render(ROW)
    assert str(told.value).startswith("template parsing error: template: :") and message in str(told.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{range 1000000000000}}{{end}}",
        "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}",
        '{{$x := "a"}}{{range 100}}{{$x = printf "%s%s" $x $x}}{{end}}',
        '{{$x := "a"}}{{range 100}}{{$x = print $x $x}}{{end}}',
        '{{$x := "a"}}{{range 100}}{{$x = join (split (println $x $x) "") $x}}{{end}}',
        '{{range 1000}}{{printf "%500000d" 1}}{{end}}',
    ],
)
def test_what_a_template_costs_is_bounded(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_STEPS", 5000)
    with pytest.raises(LimitExceeded, match=r"the template (makes|takes) more than"):
        Template(source).render(ROW)


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("%d|%5d|%-5d|%05d|%+d|% d", (1, 2, 3, 4, 5, 6), "1|    2|3    |00004|+5| 6"),
        (
            "%05d %x %X %#x %o %b %c %U %q",
            (-7, 255, 255, 255, 8, 5, 97, 97, 97),
            "-0007 ff FF 0xff 10 101 a U+0061 'a'",
        ),
        ("%s %10s|%-10s|%.2s %x", ("a", "b", "c", "def", "hi"), "a          b|c         |de 6869"),
        ("%q %q", ("a\nb", "ü"), '"a\\nb" "ü"'),
        ("%t %v %v %v", (True, False, None, 1.5), "true false <nil> 1.5"),
        ("%f %.1f %e %g", (1.5, 1.25, 1500.0, 0.5), "1.500000 1.2 1.500000e+03 0.5"),
        ("%s %d", (["a", "b"], [1, 2]), "[a b] [1 2]"),
        ("100%% %", (), "100% %!(NOVERB)"),
        ("%d %s", ("hi",), "%!d(string=hi) %!s(MISSING)"),
        ("%d", (1, "x"), "1%!(EXTRA string=x)"),
        ("%*d", (5, 1), "    1"),
        ("%99999999d", (1,), "%!(BADWIDTH)%!(EXTRA int=1)"),
        ("%T %T", ("a", [1]), "string slice"),
        ("%s", (None,), "%!s(<nil>)"),
    ],
)
def test_printf(form: str, values: tuple[Any, ...], text: str) -> None:
    assert sprintf(form, *values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-07"),
        (123456.75, "123456.75"),
        (MISSING, "<no value>"),
    ],
)
def test_values_print_as_go_prints_them(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_what_inspect_tells_has_dockers_types() -> None:
    facts = {
        "RepoTags": [],
        "Config": {
            "Entrypoint": None,
            "Labels": None,
            "Volumes": {"/v": {}},
            "Healthcheck": {"Test": ["CMD", "x"]},
        },
        "GraphDriver": {"Data": None, "Name": "n"},
    }
    told = Template(
        "{{.Variant}}{{.RepoTags}}{{.Config.Entrypoint}}{{.Config.Labels}}{{.Config.Labels.x}}{{.Config.Volumes}}"
        "{{.Config.Healthcheck.Test}}{{.Config.ExposedPorts}}{{.Config.StopTimeout}}{{.GraphDriver.Data}}"
    ).render(typed(facts))
    assert told == "[][]map[]<no value>map[/v:{}][CMD x]map[]<nil>map[]"
    with pytest.raises(UsageError, match="can't evaluate field Nosuch"):
        Template("{{.Config.Nosuch}}").render(typed(facts))
    assert Template("{{.Config}}").render(typed({"Config": None})) == "<nil>"


PIECES = st.sampled_from(
    re.findall(
        r"\S+",
        r"""{{ }} {{- -}} if range with else end break . .ID .Names .Labels.a $ $x := = | , ( ) "t" ` 'c' 12 -3 1.5 json
        index printf eq and not len join split /* */ nil true \t""",
    )
)


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join), st.lists(PIECES).map("".join)))
def test_no_template_is_fatal(source: str) -> None:
    try:
        Template(source).render(ROW)
    except CasstoreError as error:
        assert "\n" not in str(error)


def bodies() -> st.SearchStrategy[tuple[str, str]]:
    """(template, what it prints), nested at random."""
    plain = st.text(alphabet="ab \n}", max_size=4).map(lambda text: (text, text))
    values = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=4).map(
        lambda text: (f"{{{{{json.dumps(text)}}}}}", text)
    )

    def wider(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        pair = st.tuples(inner, inner)
        return st.one_of(
            pair.map(lambda two: (two[0][0] + two[1][0], two[0][1] + two[1][1])),
            pair.map(lambda two: (f"{{{{if .Flag}}}}{two[0][0]}{{{{else}}}}{two[1][0]}{{{{end}}}}", two[0][1])),
            pair.map(lambda two: (f"{{{{if .None}}}}{two[0][0]}{{{{else}}}}{two[1][0]}{{{{end}}}}", two[1][1])),
            inner.map(
                lambda one: (
                    f"{{{{with $w := $.ID}}}}{{{{$w}}}}{{{{with $}}}}{one[0]}{{{{end}}}}{{{{end}}}}",
                    "abc" + one[1],
                )
            ),
            inner.map(
                lambda one: (
                    f"{{{{range $i, $n := $.Names}}}}{{{{$n}}}}{{{{with $}}}}{one[0]}{{{{end}}}}{{{{end}}}}",
                    f"a{one[1]}b{one[1]}",
                )
            ),
        )

    return st.recursive(st.one_of(plain, values), wider, max_leaves=8)


@given(bodies())
def test_blocks_nest(pair: tuple[str, str]) -> None:
    source, text = pair
    assert Template(source).render(ROW) == text
