//! Files with several mistakes: each is reported once, in the order of lines, and without those that follow from it.

use super::*;

const SMALL: &str = "\
name = \"small\"
region = \"us-east-1\"
image = \"ubuntu-22.04\"
zones = [\"us-east-1a\", \"us-east-1b\"]

[health-check]
interval = \"10s\"

[[group]]
name = \"blue\"
type = \"t3.micro\"

[[group]]
name = \"green\"
type = \"t3.micro\"
";

/// The lines about `SMALL` with these texts replaced, without the file's name.
fn mistakes(changes: &[(&str, &str)]) -> Vec<String> {
    let mut text = SMALL.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    lines(&text)
}

fn lines(text: &str) -> Vec<String> {
    let error = Fleet::parse("f", text).unwrap_err().to_string();
    error.lines().map(|line| line.strip_prefix("f:").unwrap().to_owned()).collect()
}

#[test]
fn every_mistake_is_reported_in_the_order_of_lines() {
    let found = mistakes(&[
        ("name = \"small\"", "name = \"Small\""),
        ("region", "regoin"),
        (
            "[health-check]\ninterval = \"10s\"",
            "port = \"80\"\n[health-check]\ninterval = \"1s\"\nunhealthy = 1",
        ),
        ("name = \"blue\"\ntype", "name = \"blue\"\nweight = 1.5\ntyp"),
        ("name = \"green\"", "name = \"blue\"\ncount = 0\nroot = \"both\"\npaths = \"no\""),
        ("zones", "zone"),
    ]);
    assert_eq!(
        found,
        [
            "1: name: expected a lower-case letter, then up to 19 lower-case letters, digits and hyphens, no hyphen at \
             the end",
            "2: regoin: unknown key; did you mean region?",
            "4: zone: unknown key; did you mean zones?",
            "6: port: expected a number from 1 to 65535, found the text \"80\": delete the quotes",
            "8: health-check.interval: expected a duration from \"5s\" to \"300s\", found the text \"1s\"",
            "9: health-check.unhealthy: expected a number from 2 to 10, found the number 1",
            "13: group.weight: expected a number from 0 to 999, found the number 1.5",
            "14: group.typ: unknown key; did you mean type?",
            "18: group.count: expected a number from 1 to 1000, found the number 0",
            "19: group.root: expected \"health\" or \"seed\"",
            "20: group.paths: expected true or false, found the text \"no\"",
        ]
    );
}

#[test]
fn checks_that_need_a_wrong_value_are_silent() {
    for (changes, expected) in [
        // The region's form, but not that the zones are elsewhere.
        (&[("us-east-1\"", "virginia\"")][..], &["2: region: expected a region such as us-east-1"][..]),
        // The timeout's default is longer than no interval.
        (
            &[("\"10s\"", "\"x\"\ntimeout = \"110s\"")],
            &["7: health-check.interval: expected a duration from \"5s\" to \"300s\", found the text \"x\""],
        ),
        (
            &[("interval = \"10s\"", "intervall = \"200s\"\ntimeout = \"110s\"")],
            &["7: health-check.intervall: unknown key; did you mean interval?"],
        ),
        // Whether all weights are 0 is not known.
        (
            &[("\"t3.micro\"", "\"t3.micro\"\nweight = 0"), ("green\"", "green\"\nweight = -1")],
            &["16: group.weight: expected a number from 0 to 999, found the number -1"],
        ),
        // The first of two values counts.
        (
            &[("\"green\"", "\"blue\""), ("name = \"small\"\n", "name = \"small\"\nname = \"small-2\"\n")],
            &[
                "2: name is given twice (first in line 1): delete one",
                "15: group.name: two groups have the name blue: rename one",
            ],
        ),
        // One wrong item is told, not that there is one zone.
        (
            &[("\"us-east-1b\"", "\"us-east-1\"")],
            &["4: zones: expected an availability zone such as us-east-1a, found \"us-east-1\""],
        ),
        // Keys of another table.
        (
            &[("[health-check]", "# [health-check]"), ("name = \"blue\"", "name = \"blue\"\nport = 81")],
            &[
                "7: interval: unknown key; it belongs to health-check",
                "11: group.port: unknown key; write it above the first [table]",
            ],
        ),
        // The same mistake twice in a line.
        (
            &[("\"us-east-1a\", \"us-east-1b\"", "1, 1")],
            &["4: zones: expected a list of texts in quotes, found the number 1: write \"1\""],
        ),
        (
            &[("[[group]]\nname = \"blue\"\ntype = \"t3.micro\"\n\n[[group]]", "[groups]")],
            &["9: groups: unknown key; did you mean group?"],
        ),
    ] {
        assert_eq!(mistakes(changes), expected);
    }
}

#[test]
fn a_doubled_key_or_table_names_the_first() {
    for (changes, expected) in [
        (
            ("type = \"t3.micro\"\n\n", "type = \"t3.micro\"\nname = \"red\"\n"),
            "12: group.name is given twice (first in line 10): delete one",
        ),
        (
            ("interval = \"10s\"", "interval = \"10s\"\ninterval = \"x\""),
            "8: health-check.interval is given twice (first in line 7): delete one",
        ),
        (
            ("interval = \"10s\"", "interval = \"10s\"\n[tags]\n[health-check]"),
            "9: [health-check] is given twice (first in line 6): write its keys below one header",
        ),
        (
            ("region = ", "group = 1\nregion = "),
            "2: group: expected two brackets on each side: write [[group]]",
        ),
    ] {
        assert_eq!(mistakes(&[changes])[0], expected);
    }
}

#[test]
fn violations_of_tomls_grammar_are_reported_with_the_other_mistakes() {
    // The instance type is wrong too, and the only other mistake.
    let other = "type = \"t3\"";
    for (from, to, expected) in [
        (
            "image = \"ubuntu-22.04\"",
            "image = ubuntu-22.04",
            "3: image: a text needs quotes: write \"ubuntu-22.04\"",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image = “ubuntu-22.04”",
            "3: image: a text needs quotes: write \"ubuntu-22.04\"",
        ),
        ("image = \"ubuntu-22.04\"", "image = nimbus", "3: image: a text needs quotes: write \"nimbus\""),
        (
            "image = \"ubuntu-22.04\"",
            "image = \"ubuntu-22.04",
            "3: image: a quote is missing: write one before and one after each text",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image = 'ubuntu-22.04",
            "3: image: a quote is missing: write one before and one after each text",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image =",
            "3: image: the value is missing: write it after =, or delete the line",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image: \"ubuntu-22.04\"",
            "3: image: no = after the key: write KEY = VALUE",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image \"ubuntu-22.04\"",
            "3: image: no = after the key: write KEY = VALUE",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "image = \"ubuntu\" 22",
            "3: image: more follows the value: delete it, or write several values as a list, [\"a\", \"b\"]",
        ),
        ("image = \"ubuntu-22.04\"", "image = \"C:\\ubuntu\"", "3: image: a backslash begins an escape: "),
        (
            "image = \"ubuntu-22.04\"",
            "image = \"\"\"ubuntu-22.04",
            "3: image: the closing \"\"\" is missing: ",
        ),
        (
            "image = \"ubuntu-22.04\"",
            "// the image\nimage = \"debian-13\"",
            "3: a comment begins with #: write # before it",
        ),
        (
            "image = \"ubuntu-22.04\"",
            ">>>>>>> mine\nimage = \"debian-13\"",
            "3: this line was left by a merge: ",
        ),
        ("image = \"ubuntu-22.04\"", "port = 080\nimage = \"debian-13\"", "3: port: not TOML ("),
        ("\"us-east-1b\"]", "\"us-east-1b\"", "4: zones: the list is not closed: write ] at its end"),
        ("\"us-east-1b\"]", "\"us-east-1b\" # two", "4: zones: the list is not closed: write ] at its end"),
        (", \"us-east-1b\"]", ",\n\"us-east-1b\"\n", "4: zones: the list is not closed: write ] at its end"),
        (
            ", \"us-east-1b\"]",
            " \"us-east-1b\"]",
            "4: zones: the list lacks a comma: write one between every two values",
        ),
        (
            "us-east-1a\", ",
            "us-east-1a, ",
            "4: zones: a quote is missing: write one before and one after each text",
        ),
        ("[\"us-east-1a\", ", "[us-east-1a, ", "4: zones: a text needs quotes: write \"us-east-1a\""),
        (
            "[health-check]",
            "[health-check",
            "6: health-check: expected one bracket on each side: write [health-check]",
        ),
        ("[health-check]", "[health check]", "6: health: "),
        ("[[group]]", "[[group]", "9: group: expected two brackets on each side: write [[group]]"),
        ("[[group]]", "[group]", "9: group: expected two brackets on each side: write [[group]]"),
        ("[health-check]", "{health-check]", "6: health-check: "),
        ("[[group]]", "[group", "9: group: expected two brackets on each side: write [[group]]"),
    ] {
        let found = mistakes(&[(from, to), ("type = \"t3.micro\"", other)]);
        assert!(found[0].starts_with(expected), "{found:#?}");
        assert!(found[1].ends_with(": group.type: expected an instance type such as t3.micro"), "{found:#?}");
        assert_eq!(found.len(), 2, "{found:#?}");
    }
}

#[test]
fn several_violations_of_the_grammar_are_reported_at_once() {
    let found = mistakes(&[
        ("\"small\"", "small"),
        ("\"us-east-1b\"]", "\"us-east-1b\""),
        ("\"10s\"", "10s"),
        ("[[group]]", "[group]"),
        ("[[group]]", "[group]"),
        ("\"t3.micro\"", "\"t3.micro\"\ncolour = \"blue\""),
    ]);
    assert_eq!(
        found,
        [
            "1: name: a text needs quotes: write \"small\"",
            "4: zones: the list is not closed: write ] at its end",
            "7: health-check.interval: a text needs quotes: write \"10s\"",
            "9: group: expected two brackets on each side: write [[group]]",
            "12: group.colour: unknown key; did you mean count?",
            "14: group: expected two brackets on each side: write [[group]]",
        ]
    );
}

#[test]
fn a_file_without_keys_says_what_a_fleet_needs() {
    for text in ["", "\n", "# nothing yet\n"] {
        let expected = "1: the file sets no key; a fleet needs at least name, image, zones (two or more), and one \
                        [[group]] with name and type; `bootstrap fleets show clusters` prints an example";
        assert_eq!(lines(text), [expected]);
    }
    let least = "name = \"a\"\nimage = \"debian-13\"\nzones = [\"us-east-1a\", \"us-east-1b\"]\n[[group]]\nname = \"a\"\ntype = \"t3.micro\"\n";
    assert_eq!(Fleet::parse("f", least).unwrap().instances(), 1);
    for line in [
        "name = \"a\"\nimage",
        "image = \"debian-13\"",
        "zones = [\"us-east-1a\", \"us-east-1b\"]",
        "[[group]]\nname = \"a\"\ntype = \"t3.micro\"",
        "type = \"t3.micro\"",
    ] {
        let key = if line.starts_with("name") { "name = \"a\"\n" } else { line };
        let found = lines(&least.replacen(key, "", 1));
        assert!(found.len() == 1 && found[0].contains("missing; write "), "{found:?}");
    }
}

#[test]
fn a_file_of_another_kind_ends_the_report() {
    let found = lines(&"{ \"a\": 1 }\n".repeat(200));
    assert!(found.len() < 50, "{}", found.len());
    assert_eq!(found.last().unwrap(), "200: too many mistakes: is this a fleet file?");
    // Neither a key nor a value begins a line of its own, or is endless.
    let long = format!("\"{}\\nx\" = 1\n{SMALL}", "k".repeat(1000));
    let found = lines(&long);
    assert!(found.len() == 1 && found[0].contains("k…: unknown key; known keys: name, "), "{found:?}");
}

/// A character that is missing, added or wrong causes few follow-on mistakes, and no panic.
#[test]
fn one_wrong_character_is_at_most_three_mistakes() {
    let characters = [
        "", "\"", "'", "[", "]", "{", "}", "=", "#", ",", ".", "\n", "\t", "é", "\"\"\"", "\u{0}", "\r", "\\",
    ];
    for (index, old) in SMALL.char_indices() {
        for new in characters {
            for end in [index, index + old.len_utf8()] {
                let changed = format!("{}{new}{}", &SMALL[..index], &SMALL[end..]);
                let Err(error) = Fleet::parse("f", &changed) else { continue };
                let error = error.to_string();
                assert!((1..=3).contains(&error.lines().count()), "{changed}\n{error}");
                assert!(error.lines().all(|line| line.starts_with("f:")), "{changed}\n{error}");
            }
        }
    }
}
