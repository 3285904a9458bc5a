//! One table: template, expected text or error.

use super::Template;
use serde_json::{Value, json};

fn data() -> Value {
    json!({
        "ID": "4711", "Names": ["web", "www"], "Labels": {"a": "1", "com.x/y": "2"}, "Empty": [], "None": null,
        "State": {"Running": true, "Pid": 12, "Health": {"Status": "healthy"}}, "Size": 1.5, "Big": 12000000000000u64,
        "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}], "Text": "Hello, World", "Zero": 0,
        "dns_enabled": true,
    })
}

#[track_caller]
fn check(text: &str, expected: &str) {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(rendered) => assert_eq!(rendered, expected, "{text}"),
        Err(error) => panic!("{text}: {error}"),
    }
}

#[track_caller]
fn refuse(text: &str, expected: &str) {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(rendered) => panic!("{text} rendered as {rendered:?}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
    }
}

#[test]
fn fields_and_text() {
    for (text, expected) in [
        ("plain", "plain"),
        ("{{.ID}}", "4711"),
        ("{{ .ID }}-{{.State.Pid}}", "4711-12"),
        ("{{.State.Health.Status}}", "healthy"),
        ("{{.Labels.a}} {{.Labels.missing}}", "1 <no value>"),
        ("{{.None}}", "<no value>"),
        ("{{.Names}} {{.Empty}} {{.Labels}}", "[web www] [] map[a:1 com.x/y:2]"),
        ("{{.Size}} {{.Big}} {{.State.Running}}", "1.5 12000000000000 true"),
        ("{{.DNSEnabled}}", "true"),
        ("{{$.ID}}", "4711"),
        (r"a\tb\nc", "a\tb\nc"),
        (r#"{{.ID}}\t{{"x\ty"}}"#, "4711\tx\ty"),
        ("{{/* a comment */}}x", "x"),
        ("a {{- /* c */ -}} b", "ab"),
        ("a  {{- .ID -}}  b", "a4711b"),
        ("{{`raw\\n`}}", "raw\\n"),
        ("{{-3}}", "-3"),
        ("{{0x10}} {{1.5}} {{'a'}} {{true}}", "16 1.5 97 true"),
    ] {
        check(text, expected);
    }
}

#[test]
fn control() {
    for (text, expected) in [
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Zero}}a{{else if .Empty}}b{{else}}c{{end}}", "c"),
        ("{{if not .None}}a{{end}}", "a"),
        ("{{range .Mounts}}{{.Source}},{{end}}", "/a,/b,"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .Names}}{{$i}}={{$e}};{{end}}", "0=web;1=www;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 com.x/y=2 "),
        ("{{range .Mounts}}{{if .RW}}{{continue}}{{end}}{{.Source}}{{break}}{{end}}", "/b"),
        ("{{range .Mounts}}{{$.ID}}{{end}}", "47114711"),
        ("{{with .State}}{{.Pid}}{{end}}{{with .None}}x{{else}}y{{end}}", "12y"),
        ("{{with $x := .ID}}{{$x}}{{.}}{{end}}", "47114711"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{range .None}}x{{end}}", ""),
    ] {
        check(text, expected);
    }
}

#[test]
fn functions() {
    for (text, expected) in [
        ("{{json .Names}} {{json .}}", None),
        ("{{json .Labels}}", Some(r#"{"a":"1","com.x/y":"2"}"#)),
        ("{{json .Text | len}}", Some("14")),
        ("{{len .Names}} {{len .Text}} {{len .Empty}}", Some("2 12 0")),
        ("{{index .Names 1}} {{index .Labels \"com.x/y\"}}", Some("www 2")),
        ("{{index .Mounts 0 \"Source\"}}", Some("/a")),
        ("{{(index .Mounts 1).Source}}", Some("/b")),
        ("{{join .Names \",\"}}", Some("web,www")),
        ("{{range split .Text \", \"}}<{{.}}>{{end}}", Some("<Hello><World>")),
        ("{{upper .Text}} {{lower .Text}} {{title \"ab cd\"}}", Some("HELLO, WORLD hello, world Ab Cd")),
        ("{{truncate .Text 5}}|{{pad .ID 1 2}}|", Some("Hello| 4711  |")),
        ("{{.Text | printf \"%.5s\" | upper}}", Some("HELLO")),
        (
            "{{printf \"%s %d %v %q %t %5d|%-5d|%05d %x %T\" .ID 7 .Names .ID true 7 7 7 255 1}}",
            Some("4711 7 [web www] \"4711\" true     7|7    |00007 ff int"),
        ),
        ("{{printf \"%.2f %6.2f %g\" .Size .Size .Size}}", Some("1.50   1.50 1.5")),
        (
            "{{printf \"%d\" .ID}} {{printf \"%s\"}} {{printf \"x\" 1}}",
            Some("%!d(string=4711) %!s(MISSING) x%!(EXTRA int=1)"),
        ),
        ("{{print .ID \"a\" 1 2}}{{println 1 2}}", Some("4711a1 21 2\n")),
        (
            "{{eq .ID \"1\" \"4711\"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1.5 2}}",
            Some("true true true true true false"),
        ),
        ("{{and .ID .Zero}} {{or .Zero .ID}} {{and 1 2}} {{or 0 \"\"}}", Some("0 4711 2 ")),
        ("{{and .None .None.Deeper}}", Some("<no value>")),
        ("{{if and (eq .ID \"4711\") (not .Zero)}}yes{{end}}", Some("yes")),
        ("{{slice .Text 0 5}} {{slice .Names 1}}", Some("Hello [www]")),
        ("{{.ID | len | printf \"%03d\"}}", Some("004")),
    ] {
        match expected {
            Some(expected) => check(text, expected),
            None => assert!(
                Template::parse(text).unwrap().render(&data()).unwrap().starts_with("[\"web\",\"www\"] {"),
                "{text}"
            ),
        }
    }
}

#[test]
fn errors() {
    for (text, expected) in [
        ("{{.Foo}}", "template: format:1:2: executing \"format\" at <.Foo>: can't evaluate field Foo in type object"),
        (
            "a {{.State.Foo}}",
            "template: format:1:4: executing \"format\" at <.State.Foo>: can't evaluate field Foo in type object",
        ),
        ("{{.ID.x}}", "template: format:1:2: executing \"format\" at <.ID.x>: can't evaluate field x in type string"),
        (
            "{{.None.x}}",
            "template: format:1:2: executing \"format\" at <.None.x>: nil pointer evaluating interface {}.x",
        ),
        ("{{range .ID}}{{end}}", "template: format:1:8: executing \"format\" at <.ID>: range can't iterate over 4711"),
        (
            "{{eq 1 \"a\"}}",
            "template: format:1:2: executing \"format\" at <eq>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{index .Names 7}}",
            "template: format:1:2: executing \"format\" at <index>: error calling index: index out of range: 7",
        ),
        ("{{.ID", "template: format:1: unclosed action"),
        ("{{}}", "template: format:1: missing value for command"),
        ("{{foo .ID}}", "template: format:1: function \"foo\" not defined"),
        ("{{$x}}", "template: format:1: undefined variable \"$x\""),
        ("{{if .ID}}", "template: format:1: unexpected EOF"),
        ("x\n{{end}}", "template: format:2: unexpected {{end}}"),
        ("{{break}}", "template: format:1: {{break}} outside {{range}}"),
        ("{{\"abc}}", "template: format:1: unterminated quoted string"),
        ("{{.ID | 3}}", "template: format:1: non executable command in pipeline stage 2"),
        ("{{(.ID}}", "template: format:1: unclosed left paren"),
        ("{{.ID)}}", "template: format:1: unexpected right paren"),
        ("{{template \"x\"}}", "template: format:1: {{template}} is not supported in --format"),
        ("{{.ID .ID}}", "template: format:1:2: executing \"format\" at <.ID>: can't give argument to non-function .ID"),
    ] {
        refuse(text, expected);
    }
}

#[test]
fn no_input_makes_it_panic() {
    // Every prefix and every text with one piece missing: parse or refuse, nothing else.
    let text = "a{{if and .ID (eq .Zero 0)}}{{range $i, $e := .Names}}{{printf \"%5.2s|%v\" $e $i | upper}}{{else}}x{{end -}} \
                {{- else with .State}}{{.Pid}}{{end}}{{`raw`}}{{'x'}}{{/* c */}}{{index .Labels \"a\"}}";
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for &start in &places {
        for length in [1, 2, 5, 20] {
            let end = (start + length).min(text.len());
            for candidate in [&text[..start], &format!("{}{}", &text[..start], &text[end..])] {
                let _ = Template::parse(candidate).and_then(|template| template.render(&data()));
            }
        }
    }
}
