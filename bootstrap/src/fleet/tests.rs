//! What a fleet file may say, and what is said of one that is wrong.

use std::io;
use std::time::Duration;

use super::*;

fn clusters() -> &'static str {
    Fleet::built_in("clusters").unwrap()
}

/// A key as gpg would write it, as far as its form goes.
const KEY: &str =
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";

/// `clusters`, with this before its first table.
fn with(text: &str) -> Result<Fleet, FleetError> {
    let text = clusters().replacen("[health-check]", &format!("{text}\n[health-check]"), 1);
    Fleet::parse_with("folder/f", &text, &|path| match path.to_str() {
        Some("folder/keys/repository.asc") => Ok(KEY.to_owned()),
        Some("folder/private.asc") => Ok(KEY.replace("PUBLIC", "PRIVATE")),
        Some("folder/binary.gpg") => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

/// The message about `clusters` with this before its first table.
fn message(text: &str) -> String {
    let error = with(text).unwrap_err().to_string();
    error.strip_prefix("folder/f:").map(str::to_owned).unwrap()
}

#[test]
fn the_built_in_fleets_are_the_two_set_ups() {
    let fleet = Fleet::parse("clusters", clusters()).unwrap();
    let groups: Vec<_> = fleet
        .groups
        .iter()
        .map(|g| (g.name.as_str(), g.instance_type.as_str(), g.count, g.weight, g.paths))
        .collect();
    assert_eq!(groups, [("cluster1", "m4.large", 5, 1, true), ("cluster2", "t2.large", 4, 1, true)]);
    assert_eq!(fleet.image, "ami-08c40ec9ead489470");
    assert_eq!(fleet.zones, ["us-east-1a", "us-east-1b"]);
    assert_eq!(fleet.deregistration_delay, Duration::from_secs(300));
    assert_eq!(fleet.target_group(&fleet.groups[0]), "clusters-cluster1");
    assert_eq!(fleet.security.ports, [22, 80, 443]);
    assert_eq!(
        (fleet.security.allow, fleet.security.balancer_allow.len()),
        (vec!["0.0.0.0/0".to_owned()], 1)
    );
    assert_eq!((fleet.key_pair, fleet.instance_profile, fleet.package), (None, None, None));

    let seed = Fleet::parse("seed", Fleet::built_in("seed").unwrap()).unwrap();
    assert_eq!((seed.instances(), seed.groups[0].instance_type.as_str()), (2, "t3.micro"));
    assert_eq!(seed.image, "ubuntu-22.04");
    assert_eq!(seed.groups[0].root, Root::Seed);
    assert!(!seed.groups[0].paths);
    assert_eq!(seed.health_check.path, "/");
}

#[test]
fn counts_can_be_set_for_groups_that_exist() {
    let mut fleet = Fleet::parse("clusters", clusters()).unwrap();
    fleet.set_count("cluster1", 3).unwrap();
    assert_eq!(fleet.instances(), 7);
    let error = fleet.set_count("cluster3", 1).unwrap_err();
    assert_eq!(error, "fleet clusters has no group cluster3, only cluster1, cluster2");
}

#[test]
fn errors_name_line_key_and_the_nearest_known_key() {
    let cases = [
        ("region = ", "regoin = ", "f:4: regoin: unknown key; did you mean region?"),
        ("type = \"m4", "typ = \"m4", "f:19: group.typ: unknown key; did you mean type?"),
        (
            "timeout = \"5s\"",
            "zzzzzzzzzz = 1",
            "f:13: health-check.zzzzzzzzzz: unknown key; known are path, interval, timeout, healthy, unhealthy",
        ),
        ("count = 5", "count = 0", "f:20: group.count: expected a number from 1 to 1000"),
        ("count = 5", "count = \"5\"", "f:20: group.count: expected a number from 1 to 1000"),
        ("\"5s\"", "\"1\"", "f:13: health-check.timeout: expected a duration from \"2s\" to \"120s\""),
        ("\"5s\"", "1", "f:13: health-check.timeout: expected a duration from \"2s\" to \"120s\""),
        ("\"5s\"", "\"30s\"", "f:13: health-check.timeout: expected less than health-check.interval"),
        ("path = \"/\"", "path = \"\"", "f:11: health-check.path: expected a text in quotes"),
        ("path = \"/\"", "path = \"health\"", "f:11: health-check.path: expected a path that begins with /"),
        (", \"us-east-1b\"", "", "f:6: zones: a load balancer needs two different availability zones"),
        ("us-east-1b", "us-east-1a", "f:6: zones: us-east-1a is there twice"),
        ("us-east-1b", "us-east-1", "f:6: zones: expected zones such as us-east-1a"),
        ("us-east-1b", "us-east-2b", "f:6: zones: us-east-2b is not in the region us-east-1"),
        ("us-east-1\"", "virginia\"", "f:4: region: expected a region such as us-east-1"),
        (
            "region = \"us-east-1\"\nimage = \"ami-08c40ec9ead489470\"\nzones = [\"us-east-1a\"",
            "image = \"debian-13\"\nzones = [\"us-west-1a\"",
            "f:5: zones: us-east-1b and us-west-1a are in different regions",
        ),
        (
            "ami-08c40ec9ead489470",
            "ami-08c40ec9ead48947",
            "f:5: image: expected an id (ami- and 8 or 17 hex digits) or a name such as ubuntu-22.04",
        ),
        (
            "ami-08c40ec9ead489470",
            "Ubuntu 22.04",
            "f:5: image: expected an id (ami- and 8 or 17 hex digits) or a name such as ubuntu-22.04",
        ),
        ("m4.large", "m4", "f:19: group.type: expected an instance type such as t3.micro"),
        ("\"cluster2\"", "\"cluster1\"", "f:24: group.name: there are two groups cluster1"),
        (
            "\"cluster2\"",
            "\"cluster2-\"",
            "f:24: group.name: expected a lower-case letter, then up to 19 lower-case letters, digits and \
             hyphens, no hyphen at the end",
        ),
        (
            "\"cluster2\"",
            "\"seed\"",
            "f:24: group.name: /seed is the agent's own path; choose another name or set paths = false",
        ),
        (
            "name = \"clusters\"",
            "name = \"clusters-with-a-name\"",
            "f:24: group.name: the target group would be clusters-with-a-name-cluster2-of-two, longer than 32 \
             characters",
        ),
        (
            "\"clusters\"",
            "\"internal-x\"",
            "f:3: name: AWS has no balancers with names that begin with internal-",
        ),
        ("\"clusters\"", "\"sg\"", "f:3: name: AWS has no security groups with names that begin with sg-"),
        ("port = 80", "port = 80\nport = 81", "f:8: duplicate key"),
        ("image = \"ami-08c40ec9ead489470\"\n", "", "f:1: image: missing"),
        ("[[group]]", "[group]", "f:17: group: expected tables: [[group]]"),
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
    for wrong in ["-1", "3601", "0x5", "5.0", "true", "[5]", "\"\"", "\"5 s\"", "\"2h\""] {
        let error = Fleet::parse("f", &clusters().replacen("\"300s\"", wrong, 1)).unwrap_err();
        let expected = "f:8: deregistration-delay: expected a duration from \"0s\" to \"3600s\"";
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
        ("allow = [\"10.0.0.0/33\"]", &format!("allow: {ranges}: after / comes a number from 0 to 32")),
        ("allow = [\"10.0.0.0/08\"]", &format!("allow: {ranges}: after / comes a number from 0 to 32")),
        ("allow = [\"10.0.0/8\"]", &format!("allow: {ranges}, found \"10.0.0/8\"")),
        (
            "allow = [\"::/0\"]",
            &format!("allow: {ranges}: the balancer and the instances have no IPv6 addresses"),
        ),
        ("allow = [\"10.0.0.0/8\", \"10.0.0.0/8\"]", "allow: 10.0.0.0/8 is there twice"),
        ("allow = \"10.0.0.0/8\"", "allow: expected a list of texts in quotes"),
        (&many, "allow: that makes 91 rules, and a security group takes 60"),
        ("ports = [0]", "ports: expected a list of ports, each from 1 to 65535"),
        ("ports = [65536]", "ports: expected a list of ports, each from 1 to 65535"),
        ("ports = 22", "ports: expected a list of ports, each from 1 to 65535"),
        ("ports = [22, 80, 22]", "ports: 22 is there twice"),
        (
            "balancer-allow = []",
            "balancer-allow: expected at least one range, or nobody could reach the balancer",
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
        ("", "10: package: expected one of in-image, deb, url and apt"),
        (
            "in-image = false",
            "11: package.in-image: expected true; leave [package] out where the file does not say",
        ),
        ("in-image = 1", "11: package.in-image: expected true or false"),
        (
            "in-image = true\ndeb = \"a.deb\"",
            "12: package.deb: there is in-image already; only one of in-image, deb, url and apt",
        ),
        ("deb = \"agent\"", "11: package.deb: expected the path of a .deb file"),
        ("deb = \"a.deb\"\nsha256 = \"00\"", "12: package.sha256: goes with url only"),
        ("url = \"https://example.com/a.deb\"", "10: package.sha256: missing"),
        (
            "url = \"https://example.com/a.deb\"\nsha256 = \"00\"",
            "12: package.sha256: expected 64 lower-case hex digits, as sha256sum prints",
        ),
        (line, "10: package.key: missing"),
        (&format!("{line}\nkey = \"none.asc\""), "12: package.key: folder/none.asc: entity not found"),
        (&format!("{line}\nkey = \"binary.gpg\""), "12: package.key: folder/binary.gpg: invalid data"),
        (
            &format!("{line}\nkey = \"private.asc\""),
            "12: package.key: folder/private.asc: this is a private key, which belongs on no instance; export the \
             public one",
        ),
        ("apt = \"https://example.com/debian\"", &format!("11: package.apt: {one_line}")),
        ("apt = \"deb https://example.com/debian stable\"", &format!("11: package.apt: {one_line}")),
        ("apt = \"deb https://example.com/debian stable main\\nx\"", &format!("11: package.apt: {one_line}")),
        ("apt = \"deb https://example.com/debian stable main; x\"", &format!("11: package.apt: {one_line}")),
        (
            "apt = \"deb [arch=amd64 trusted=yes] https://example.com/debian stable main\"",
            "11: package.apt: leave [trusted=yes] out: arch, lang, target, pdiffs and by-hash are options that leave the \
             repository's signature checked",
        ),
        (
            "apt = \"deb [Allow-Insecure=yes] https://example.com/debian stable main\"",
            "11: package.apt: leave [Allow-Insecure=yes] out: arch, lang, target, pdiffs and by-hash are options that \
             leave the repository's signature checked",
        ),
        (
            "apt = \"deb [signed-by=/k] https://example.com/debian stable main\"",
            "11: package.apt: leave signed-by out: the repository is trusted by the key that package.key names",
        ),
        ("snap = \"x\"", "11: package.snap: unknown key; known are in-image, deb, url, sha256, apt, key"),
    ] {
        assert_eq!(message(&format!("[package]\n{text}")), expected, "{text}");
    }
    for wrong in
        ["example.com/a.deb", "ftp://example.com/a.deb", "https://", "https://e.com/a b", "https://e.com/'x"]
    {
        assert!(values::package_url(wrong).is_err(), "{wrong}");
    }
    let said = |url| values::package_url(url).unwrap_err();
    assert!(
        said("https://user:secret@e.com/a.deb").starts_with("leave the user name and the password out: ")
    );
    assert!(said("https://e.com/a.deb?").starts_with("leave the ? at the end out"));
    assert_eq!(values::package_url("https://e.com/a@b.deb?Signature=x@y"), Ok(()));
}

#[test]
fn tags_are_those_that_every_resource_takes() {
    let fleet = with("[tags]\nProject = \"x: a/b\"\n\"cost-centre@home\" = \"\"").unwrap();
    let tags: Vec<_> = fleet.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("Project", "x: a/b"), ("cost-centre@home", "")]);

    let key = "a tag's key has 1 to 127 letters, digits and any of + - = . _ : @";
    let own = "Name and keys that begin with instance-agent: are set by bootstrap itself";
    let long = "k".repeat(128);
    let value = "a tag's value has at most 256 letters, digits, spaces and any of + - = . _ : / @";
    for (name, content, expected) in [
        ("my key", "x", key),
        ("a/b", "x", key),
        ("a,b", "x", key),
        (&long, "x", key),
        ("_index", "x", "an instance cannot publish a tag of this name in its metadata"),
        ("AWS:x", "x", "keys that begin with aws: are AWS's own"),
        ("instance-agent:fleet", "x", own),
        ("Name", "x", own),
        ("a", "x;y", value),
        ("a", &"v".repeat(257), value),
    ] {
        let wrong = message(&format!("[tags]\n\"{name}\" = \"{content}\""));
        assert_eq!(wrong, format!("11: tags.{name}: {expected}"));
    }
    assert_eq!(message("[tags]\na = 1"), "11: tags.a: expected a text in quotes");
    let many: String = (0..41).map(|n| format!("t{n} = \"x\"\n")).collect();
    let wrong = message(&format!("[tags]\n{many}"));
    assert_eq!(wrong, "10: tags: 41 tags, and at most 40 fit beside the fleet's own");
}

#[test]
fn a_definition_that_tags_cannot_hold_is_refused() {
    let tags: String = (0..30).map(|n| format!("t{n} = \"{}\"\n", "x".repeat(200))).collect();
    let wrong = message(&format!("[tags]\n{tags}"));
    assert!(wrong.starts_with("1: the fleet's definition is kept in tags, and "), "{wrong}");
    assert!(wrong.ends_with("; use fewer tags, or a shorter key in package"), "{wrong}");
}

#[test]
fn a_fleet_can_be_given_another_name_that_fits() {
    let mut fleet = with("").unwrap();
    fleet.rename("staging").unwrap();
    assert_eq!(fleet.target_group(&fleet.groups[0]), "staging-cluster1");
    let text = clusters().replace("\"cluster2\"", "\"cluster2-of-two\"");
    let mut fleet = Fleet::parse("f", &text).unwrap();
    for (name, expected) in [
        ("Staging", "expected a lower-case letter"),
        ("internal-staging", "AWS has no balancers"),
        ("staging-of-clusters", "the target group would be staging-of-clusters-cluster2-of-two"),
    ] {
        let error = fleet.rename(name).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(fleet.name, "clusters");
    }
}

#[test]
fn a_definition_is_read_back_as_it_was_written() {
    let fleet = with("key-pair = \"ops\"\n[tags]\nb = \"2\"\na = \"1\"\n[package]\ndeb = \"a.deb\"").unwrap();
    let definition = fleet.definition();
    let read = Fleet::from_definition(&definition).unwrap();
    assert_eq!(read.definition(), definition);
    assert_eq!(read.region, None, "it is where it is");
    assert_eq!(read.package, Some(Package::Deb { file: None, sha256: String::new() }));
    assert_eq!(Fleet { region: fleet.region.clone(), package: fleet.package.clone(), ..read }, fleet);

    let seed = r#"{"name":"seed","image":"ubuntu-22.04","zones":["us-east-1a","us-east-1b"],"port":80,"deregistration-delay":"0s","health-check":{"path":"/","interval":"10500ms","timeout":"5s","healthy":5,"unhealthy":2},"groups":[{"name":"seed","instance-type":"t3.micro","count":2,"weight":1,"root":"seed","paths":false}],"security":{"ports":[22,80,443],"allow":["0.0.0.0/0"],"balancer-allow":["0.0.0.0/0"]}}"#;
    let read = Fleet::from_definition(seed).unwrap();
    assert_eq!(
        (read.groups[0].root, read.health_check.interval),
        (Root::Seed, Duration::from_millis(10_500))
    );
    assert_eq!(read.definition(), seed, "stored by any version");

    let bare = with("").unwrap().definition();
    assert_eq!(
        bare,
        r#"{"name":"clusters","image":"ami-08c40ec9ead489470","zones":["us-east-1a","us-east-1b"],"port":80,"deregistration-delay":"300s","health-check":{"path":"/","interval":"30s","timeout":"5s","healthy":5,"unhealthy":2},"groups":[{"name":"cluster1","instance-type":"m4.large","count":5,"weight":1,"root":"health","paths":true},{"name":"cluster2","instance-type":"t2.large","count":4,"weight":1,"root":"health","paths":true}],"security":{"ports":[22,80,443],"allow":["0.0.0.0/0"],"balancer-allow":["0.0.0.0/0"]}}"#
    );
}

#[test]
fn a_definition_of_another_version_or_of_other_hands_is_an_error() {
    let definition = with("").unwrap().definition();
    for (from, to, expected) in [
        ("\"port\"", "\"tls\":true,\"port\"", "unknown field `tls`"),
        ("\"paths\":true", "\"paths\":true,\"spot\":true", "unknown field `spot`"),
        ("\"security\"", "\"package\":{\"snap\":{}},\"security\"", "unknown variant `snap`"),
        ("\"30s\"", "\"soon\"", "expected a duration such as"),
        ("{", "", "use the version that launched it, or a newer one"),
        ("[\"us-east-1a\",\"us-east-1b\"]", "[]", "changed by hand"),
        ("\"name\":\"clusters\"", "\"name\":\"../x\"", "changed by hand"),
        ("cluster2", "cluster1", "there are two groups cluster1"),
    ] {
        let changed = definition.replacen(from, to, 1);
        assert_ne!(changed, definition);
        let error = Fleet::from_definition(&changed).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn differences_are_told_by_the_keys_of_a_fleet_file() {
    let stored = with("key-pair = \"ops\"\n[tags]\na = \"1\"\n[package]\nin-image = true").unwrap();
    assert_eq!(stored.differences(&stored), []);
    let mut wanted = with("[tags]\na = \"2\"\nb = \"3\"").unwrap();
    wanted.region = None;
    wanted.groups[0].count = 6;
    wanted.groups[1].name = "cluster3".to_owned();
    wanted.health_check.interval = Duration::from_millis(10_500);
    wanted.security.ports.clear();
    let told: Vec<_> = wanted.differences(&stored).iter().map(Difference::to_string).collect();
    assert_eq!(
        told,
        [
            "health-check.interval: 30s → 10500ms",
            "security.ports: 22, 80, 443 → none",
            "tags.a: 1 → 2",
            "tags.b: none → 3",
            "key-pair: ops → none",
            "group.cluster1.count: 5 → 6",
            "group.cluster3: none → 4 x t2.large",
            "group.cluster2: 4 x t2.large → none",
        ]
    );
    let mut turned = with("").unwrap();
    turned.groups.reverse();
    let told: Vec<_> = turned.differences(&with("").unwrap()).iter().map(Difference::to_string).collect();
    assert_eq!(told, ["group: cluster1, cluster2 → cluster2, cluster1"]);
}

#[test]
fn another_package_is_a_difference_and_none_is_not() {
    let hex = "0123456789abcdef".repeat(4);
    let of = |package| Fleet { package, ..with("").unwrap() };
    let deb = |sha256: &str| Some(Package::Deb { file: None, sha256: sha256.to_owned() });
    let apt = |key: &str| {
        Some(Package::Apt { line: "deb https://example.com/ ./".to_owned(), key: key.to_owned() })
    };
    assert_eq!(of(None).differences(&of(deb(&hex))), []);
    for (wanted, stored) in [
        (deb(&hex), None),
        (deb(&hex), deb("00")),
        (Some(Package::InImage), deb(&hex)),
        (apt(KEY), apt(&KEY.replace("abcd", "abce"))),
    ] {
        let differences = of(wanted.clone()).differences(&of(stored.clone()));
        assert_eq!(differences.len(), 1, "{wanted:?} {stored:?}");
        assert_eq!(differences[0].key, "package");
        assert_eq!(of(wanted.clone()).differences(&of(wanted)), []);
    }
}

#[test]
fn the_documentation_has_every_key_and_its_examples_are_right() {
    let text = include_str!("../../../docs/fleet-files.md");
    for (table, keys) in file::KEYS {
        for key in *keys {
            let whole = format!("{table}{key}");
            let listed = text.contains(&format!("`{whole}`")) || text.contains(&format!("`.{key}`"));
            let shown = text.contains(&format!("\n{key} = "));
            let inner = file::KEYS.iter().any(|(inner, _)| *inner == format!("{whole}."));
            assert!(listed || shown || inner, "{whole} is missing");
        }
    }
    let examples: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let file = clusters().replacen("[health-check]", &format!("{example}\n[health-check]"), 1);
        Fleet::parse_with("f", &file, &|_| Ok(KEY.to_owned())).unwrap();
    }
}

#[test]
fn json_has_one_form_of_keys_and_leaves_those_of_tags_alone() {
    let text = Fleet::built_in("clusters").unwrap();
    let mut fleet = Fleet::parse("clusters.toml", text).unwrap();
    fleet.key_pair = Some("mine".to_owned());
    fleet.tags.insert("cost-center".to_owned(), "a-b".to_owned());
    let json = fleet.to_json();
    assert_eq!((&json["key_pair"], &json["tags"]["cost-center"]), (&"mine".into(), &"a-b".into()));
    assert_eq!(json["groups"][0]["instance_type"], "m4.large");
    assert_eq!(json["health_check"]["path"], "/");
    assert!(
        json["deregistration_delay"].is_string() && json["security"]["balancer_allow"].is_array(),
        "{json:#}"
    );
    let keys = json.as_object().unwrap().keys();
    assert!(keys.clone().all(|key| !key.contains('-')), "{keys:?}");
    // What AWS stores is not JSON for programs.
    assert!(fleet.definition().contains("\"deregistration-delay\""));
}
