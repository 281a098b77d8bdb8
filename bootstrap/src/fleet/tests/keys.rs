//! Each key of a fleet file, right and wrong.

use super::*;

#[test]
fn errors_name_line_key_and_the_nearest_known_key() {
    let cases = [
        ("region = ", "regoin = ", "f:4: regoin: unknown key; did you mean region?"),
        ("type = \"m4", "typ = \"m4", "f:19: group.typ: unknown key; did you mean type?"),
        (
            "timeout = \"5s\"",
            "zzzzzzzzzz = 1",
            "f:13: health-check.zzzzzzzzzz: unknown key; known keys: path, interval, timeout, healthy, unhealthy",
        ),
        ("count = 5", "count = 0", "f:20: group.count: expected a number from 1 to 1000, found the number 0"),
        (
            "count = 5",
            "count = \"5\"",
            "f:20: group.count: expected a number from 1 to 1000, found the text \"5\": delete the quotes",
        ),
        (
            "\"5s\"",
            "\"1\"",
            "f:13: health-check.timeout: expected a duration from \"2s\" to \"120s\", found the text \"1\"",
        ),
        (
            "\"5s\"",
            "1",
            "f:13: health-check.timeout: expected a duration from \"2s\" to \"120s\", found the number 1",
        ),
        (
            "\"5s\"",
            "\"30s\"",
            "f:13: health-check.timeout: 30s is not shorter than health-check.interval, 30s: shorten it",
        ),
        (
            "path = \"/\"",
            "path = \"\"",
            "f:11: health-check.path: expected a text in quotes, found an empty text",
        ),
        (
            "path = \"/\"",
            "path = \"health\"",
            "f:11: health-check.path: expected a path that begins with /, without spaces",
        ),
        (
            ", \"us-east-1b\"",
            "",
            "f:6: zones: a load balancer needs two different availability zones: add one",
        ),
        ("us-east-1b", "us-east-1a", "f:6: zones: us-east-1a is in the list twice: delete one"),
        (
            "us-east-1b",
            "us-east-1",
            "f:6: zones: expected an availability zone such as us-east-1a, found \"us-east-1\"",
        ),
        (
            "us-east-1b",
            "us-east-2b",
            "f:6: zones: us-east-2b is not in the region us-east-1: change one of the two",
        ),
        ("us-east-1\"", "virginia\"", "f:4: region: expected a region such as us-east-1"),
        (
            "region = \"us-east-1\"\nimage = \"ami-08c40ec9ead489470\"\nzones = [\"us-east-1a\"",
            "image = \"debian-13\"\nzones = [\"us-west-1a\"",
            "f:5: zones: us-east-1b and us-west-1a are in different regions: choose zones of one region",
        ),
        (
            "ami-08c40ec9ead489470",
            "ami-08c40ec9ead48947",
            "f:5: image: expected an id (ami- and 8 or 17 hex digits) or one of ubuntu-22.04, ubuntu-24.04, debian-12, debian-13",
        ),
        (
            "ami-08c40ec9ead489470",
            "Ubuntu 22.04",
            "f:5: image: expected an id (ami- and 8 or 17 hex digits) or one of ubuntu-22.04, ubuntu-24.04, debian-12, debian-13",
        ),
        ("m4.large", "m4", "f:19: group.type: expected an instance type such as t3.micro"),
        ("\"cluster2\"", "\"cluster1\"", "f:24: group.name: two groups have the name cluster1: rename one"),
        (
            "\"cluster2\"",
            "\"cluster2-\"",
            "f:24: group.name: expected a lower-case letter, then up to 19 lower-case letters, digits and \
             hyphens, no hyphen at the end",
        ),
        (
            "\"cluster2\"",
            "\"seed\"",
            "f:24: group.name: /seed is a path of the agent itself: choose another name or set paths = false",
        ),
        (
            "name = \"clusters\"",
            "name = \"clusters-with-a-name\"",
            "f:24: group.name: the target group's name clusters-with-a-name-cluster2-of-two has 36 \
             characters, and AWS takes 32: shorten the name",
        ),
        (
            "\"clusters\"",
            "\"internal-x\"",
            "f:3: name: AWS refuses load balancers whose names begin with internal-: choose another name",
        ),
        (
            "\"clusters\"",
            "\"sg\"",
            "f:3: name: AWS refuses security groups whose names begin with sg-: choose another name",
        ),
        ("port = 80", "port = 80\nport = 81", "f:8: port is given twice (first in line 7): delete one"),
        ("image = \"ami-08c40ec9ead489470\"\n", "", "f:1: image: missing; write image = \"ubuntu-22.04\""),
        ("[[group]]", "[group]", "f:17: group: expected two brackets on each side: write [[group]]"),
    ];
    for (from, to, expected) in cases {
        let mut text = clusters().replacen(from, to, 1);
        assert_ne!(text, clusters(), "{from}");
        if expected.contains("cluster2-of-two") {
            text = text.replacen("\"cluster2\"", "\"cluster2-of-two\"", 1);
        }
        if to == "[group]" {
            text = text.split("[[group]]").next().unwrap().to_owned();
        }
        let error = Fleet::parse("f", &text).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_duration_is_a_text_or_a_whole_number_of_seconds() {
    for (value, expected) in
        [("\"5\"", 5), ("\"5s\"", 5), ("5", 5), ("0", 0), ("\"2m\"", 120), ("1_000", 1000)]
    {
        let fleet = Fleet::parse("f", &clusters().replacen("\"300s\"", value, 1)).unwrap();
        assert_eq!(fleet.deregistration_delay, Duration::from_secs(expected), "{value}");
    }
    for (wrong, found) in [
        ("-1", "the number -1"),
        ("3601", "the number 3601"),
        ("0x5", "a number with a prefix"),
        ("5.0", "the number 5.0"),
        ("true", "true"),
        ("[5]", "a list"),
        ("2026-01-01", "a date or time"),
        ("{}", "a table"),
        ("\"\"", "an empty text"),
        ("\"5 s\"", "the text \"5 s\""),
        ("\"2h\"", "the text \"2h\""),
    ] {
        let error = Fleet::parse("f", &clusters().replacen("\"300s\"", wrong, 1)).unwrap_err();
        let expected =
            format!("f:8: deregistration-delay: expected a duration from \"0s\" to \"3600s\", found {found}");
        assert_eq!(error.to_string(), expected, "{wrong}");
    }
}

#[test]
fn names_that_nearly_break_a_rule_are_taken() {
    for name in ["internal", "a", "sgx", "internals-2", "a-name-of-20-letters"] {
        assert_eq!(values::fleet_name(name), Ok(()), "{name}");
    }
    for zone in ["us-east-1a", "us-east-1-bos-1a", "us-gov-west-1b", "ap-southeast-2c"] {
        assert_eq!(values::zone(zone), Ok(()), "{zone}");
    }
    for right in ["u-6tb1.112xlarge", "mac2-m2pro.metal", "g4dn.metal", "m7i-flex.large"] {
        assert_eq!(values::instance_type(right), Ok(()), "{right}");
    }
    let fleet = with("").unwrap();
    assert_eq!(fleet.target_group(&fleet.groups[1]), "clusters-cluster2");
}

#[test]
fn a_key_pair_and_a_profile_are_names() {
    let fleet = with("key-pair = \"my key\"\ninstance-profile = \"web@ops\"").unwrap();
    assert_eq!(fleet.key_pair.as_deref(), Some("my key"));
    assert_eq!(fleet.instance_profile.as_deref(), Some("web@ops"));
    let wrong = message("key-pair = \" ops\"");
    assert_eq!(wrong, "10: key-pair: expected a key pair's name: at most 255 ASCII characters");
    assert_eq!(
        message("instance-profile = \"arn:aws:iam::1:instance-profile/x\""),
        "10: instance-profile: expected an instance profile's name (not its ARN): at most 128 letters, digits and any \
         of _+=,.@-"
    );
}

#[test]
fn who_may_connect_is_ports_and_ranges() {
    let fleet = with("[security]\nports = []\nallow = [\"10.0.0.0/8\", \"203.0.113.7/32\"]").unwrap();
    assert!(fleet.security.ports.is_empty());
    assert_eq!(fleet.security.allow, ["10.0.0.0/8", "203.0.113.7/32"]);
    assert_eq!(fleet.security.balancer_allow, ["0.0.0.0/0"]);

    let ranges = "expected IPv4 addresses such as 203.0.113.0/24";
    let many: Vec<_> = (0..30).map(|n| format!("\"10.0.{n}.0/24\"")).collect();
    let many = format!("allow = [{}]", many.join(", "));
    for (text, expected) in [
        (
            "allow = [\"10.1.2.3/8\"]",
            "allow: 10.1.2.3/8 is an address within a range, not a range; did you mean 10.0.0.0/8?",
        ),
        (
            "allow = [\"10.1.2.3/0\"]",
            "allow: 10.1.2.3/0 is an address within a range, not a range; did you mean 0.0.0.0/0?",
        ),
        ("allow = [\"10.1.2.3\"]", &format!("allow: {ranges}; did you mean 10.1.2.3/32?")),
        ("allow = [\"10.0.0.0/33\"]", &format!("allow: {ranges}: after / expected a number from 0 to 32")),
        ("allow = [\"10.0.0.0/08\"]", &format!("allow: {ranges}: after / expected a number from 0 to 32")),
        ("allow = [\"10.0.0/8\"]", &format!("allow: {ranges}, found \"10.0.0/8\"")),
        (
            "allow = [\"::/0\"]",
            &format!("allow: {ranges}: the load balancer and the instances have no IPv6 addresses"),
        ),
        ("allow = [\"10.0.0.0/8\", \"10.0.0.0/8\"]", "allow: 10.0.0.0/8 is in the list twice: delete one"),
        (
            "allow = \"10.0.0.0/8\"",
            "allow: expected a list of texts in quotes, found the text \"10.0.0.0/8\": write [\"10.0.0.0/8\"]",
        ),
        (&many, "allow: 91 rules, and a security group takes 60: name fewer ports or ranges"),
        ("ports = [0]", "ports: expected a list of ports, each from 1 to 65535, found the number 0"),
        ("ports = [65536]", "ports: expected a list of ports, each from 1 to 65535, found the number 65536"),
        (
            "ports = 22",
            "ports: expected a list of ports, each from 1 to 65535, found the number 22: write [22]",
        ),
        ("ports = [22, 80, 22]", "ports: 22 is in the list twice: delete one"),
        (
            "balancer-allow = []",
            "balancer-allow: expected at least one range: without one nobody reaches the load balancer",
        ),
        ("alow = []", "alow: unknown key; did you mean allow?"),
    ] {
        assert_eq!(message(&format!("[security]\n{text}")), format!("11: security.{expected}"));
    }
}

#[test]
fn the_line_is_that_of_the_item_in_a_list() {
    let wrong = message("[security]\nallow = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/7x\",\n]");
    assert!(wrong.starts_with("13: security.allow: "), "{wrong}");
}

#[test]
fn the_agent_comes_in_one_of_four_ways() {
    let hex = "0123456789abcdef".repeat(4);
    let package = |text: &str| with(&format!("[package]\n{text}")).unwrap().package.unwrap();
    assert_eq!(package("in-image = true"), Package::InImage);
    let file = |file: &str| Package::Deb { file: Some(file.into()), sha256: String::new() };
    assert_eq!(package("deb = \"dist/agent.deb\""), file("folder/dist/agent.deb"));
    assert_eq!(package("deb = \"/dist/agent.deb\""), file("/dist/agent.deb"));
    let url = "https://example.com/agent_1.0%2B1_amd64.deb?x=1&y=2";
    let expected = Package::Url { url: url.to_owned(), sha256: hex.clone() };
    assert_eq!(package(&format!("url = \"{url}\"\nsha256 = \"{hex}\"")), expected);
    for line in [
        "deb https://example.com/debian stable main",
        "deb [arch-=i386 by-hash=no] http://example.com/debian ./",
    ] {
        let expected = Package::Apt { line: line.to_owned(), key: KEY.to_owned() };
        assert_eq!(package(&format!("apt = \"{line}\"\nkey = \"keys/repository.asc\"")), expected);
    }
}

#[test]
fn a_wrong_package_is_told_with_what_was_expected() {
    let line = "apt = \"deb https://example.com/debian stable main\"";
    let one_line = "expected one line such as \"deb https://example.com/debian stable main\"";
    for (text, expected) in [
        ("", "10: package: expected one of in-image, deb, url and apt: write one, or delete [package]"),
        (
            "in-image = false",
            "11: package.in-image: expected true; delete [package] to use the package that comes with bootstrap",
        ),
        ("in-image = 1", "11: package.in-image: expected true or false, found the number 1"),
        (
            "in-image = true\ndeb = \"a.deb\"",
            "12: package.deb: in-image is set already: delete one, only one of in-image, deb, url and apt is possible",
        ),
        ("deb = \"agent\"", "11: package.deb: expected the path of a .deb file"),
        ("deb = \"a.deb\"\nsha256 = \"00\"", "12: package.sha256: belongs to url only: delete it"),
        (
            "url = \"https://example.com/a.deb\"",
            "10: package.sha256: missing; write sha256 = \"…\", as sha256sum prints for the package",
        ),
        (
            "url = \"https://example.com/a.deb\"\nsha256 = \"00\"",
            "12: package.sha256: expected 64 lower-case hex digits, as sha256sum prints",
        ),
        (line, "10: package.key: missing; write key = \"FILE.asc\", the repository's public key"),
        (
            &format!("{line}\nkey = \"none.asc\""),
            "12: package.key: folder/none.asc: cannot read the key: entity not found",
        ),
        (
            &format!("{line}\nkey = \"binary.gpg\""),
            "12: package.key: folder/binary.gpg: cannot read the key: invalid data",
        ),
        (
            &format!("{line}\nkey = \"private.asc\""),
            "12: package.key: folder/private.asc: this is a private key: export the public one with `gpg --armor \
             --export`",
        ),
        (
            "apt = \"https://example.com/debian\"\nkey = \"keys/repository.asc\"",
            &format!("11: package.apt: {one_line}"),
        ),
        (
            "apt = \"deb https://example.com/debian stable\"\nkey = \"keys/repository.asc\"",
            &format!("11: package.apt: {one_line}"),
        ),
        (
            "apt = \"deb https://example.com/debian stable main\\nx\"\nkey = \"keys/repository.asc\"",
            &format!("11: package.apt: {one_line}"),
        ),
        (
            "apt = \"deb https://example.com/debian stable main; x\"\nkey = \"keys/repository.asc\"",
            &format!("11: package.apt: {one_line}"),
        ),
        (
            "apt = \"deb [arch=amd64 trusted=yes] https://example.com/debian stable main\"\nkey = \"keys/repository.asc\"",
            "11: package.apt: delete [trusted=yes]: with arch, lang, target, pdiffs and by-hash alone apt checks the \
             repository's signature",
        ),
        (
            "apt = \"deb [Allow-Insecure=yes] https://example.com/debian stable main\"\nkey = \"keys/repository.asc\"",
            "11: package.apt: delete [Allow-Insecure=yes]: with arch, lang, target, pdiffs and by-hash alone apt \
             checks the repository's signature",
        ),
        (
            "apt = \"deb [signed-by=/k] https://example.com/debian stable main\"\nkey = \"keys/repository.asc\"",
            "11: package.apt: delete signed-by: apt checks the repository with the key that package.key names",
        ),
        ("snap = \"x\"", "11: package.snap: unknown key; known keys: in-image, deb, url, sha256, apt, key"),
    ] {
        assert_eq!(message(&format!("[package]\n{text}")), expected, "{text}");
    }
    for wrong in
        ["example.com/a.deb", "ftp://example.com/a.deb", "https://", "https://e.com/a b", "https://e.com/'x"]
    {
        assert!(values::package_url(wrong).is_err(), "{wrong}");
    }
    let said = |url| values::package_url(url).unwrap_err();
    assert!(said("https://user:secret@e.com/a.deb").starts_with("leave user name and password out"));
    assert!(said("https://e.com/a.deb?").starts_with("leave the ? at the end out"));
    for right in ["https://e.com/a@b.deb?Signature=x@y", "https://e.com?at=a@b"] {
        assert_eq!(values::package_url(right), Ok(()), "{right}");
    }
}

#[test]
fn tags_are_those_that_every_resource_takes() {
    let fleet = with("[tags]\nProject = \"x: a/b\"\n\"cost-centre@home\" = \"\"").unwrap();
    let tags: Vec<_> = fleet.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("Project", "x: a/b"), ("cost-centre@home", "")]);

    let key = "a tag's key has 1 to 127 letters, digits and any of + - = . _ : @";
    let own = "bootstrap itself sets Name and keys that begin with \"instance-agent:\": delete this one";
    let long = "k".repeat(128);
    let value = "a tag's value has at most 256 letters, digits, spaces and any of + - = . _ : / @";
    for (name, content, expected) in [
        ("my key", "x", key),
        ("a/b", "x", key),
        ("a,b", "x", key),
        (&long, "x", key),
        ("_index", "x", "instance metadata takes no tag of this name: choose another"),
        ("AWS:x", "x", "AWS reserves keys that begin with \"aws:\": choose another"),
        ("instance-agent:fleet", "x", own),
        ("Name", "x", own),
        ("a", "x;y", value),
        ("a", &"v".repeat(257), value),
    ] {
        let wrong = message(&format!("[tags]\n\"{name}\" = \"{content}\""));
        assert_eq!(wrong, format!("11: tags.{name}: {expected}"));
    }
    assert_eq!(
        message("[tags]\na = 1"),
        "11: tags.a: expected a text in quotes, found the number 1: write \"1\""
    );
    let many: String = (0..41).map(|n| format!("t{n} = \"x\"\n")).collect();
    let wrong = message(&format!("[tags]\n{many}"));
    assert_eq!(wrong, "10: tags: 41 tags, and at most 40 fit beside those of bootstrap: delete some");
}

#[test]
fn a_definition_that_tags_cannot_hold_is_refused() {
    let tags: String = (0..30).map(|n| format!("t{n} = \"{}\"\n", "x".repeat(200))).collect();
    let wrong = message(&format!("[tags]\n{tags}"));
    assert!(wrong.starts_with("1: the fleet needs 63 tags, and AWS takes 50: "), "{wrong}");
    assert!(wrong.ends_with("; delete tags, or shorten the key of [package]"), "{wrong}");
}
