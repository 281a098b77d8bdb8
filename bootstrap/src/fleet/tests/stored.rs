//! Definitions that are stored, and their differences.

use super::*;

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
    let newer = |unknown: &str| {
        let version = env!("CARGO_PKG_VERSION");
        format!("was written by a bootstrap newer than this one, {version} ({unknown}): upgrade bootstrap")
    };
    for (from, to, expected) in [
        ("\"port\"", "\"tls\":true,\"port\"", newer("unknown field `tls`").as_str()),
        ("\"paths\":true", "\"paths\":true,\"spot\":true", &newer("unknown field `spot`")),
        ("\"security\"", "\"package\":{\"snap\":{}},\"security\"", &newer("unknown variant `snap`")),
        ("\"root\":\"health\"", "\"root\":\"both\"", &newer("unknown variant `both`")),
        ("\"port\":80,", "", "cannot be read (missing field `port`"),
        ("\"30s\"", "\"soon\"", "expected a duration such as"),
        ("{", "", "restore the tags, or use that version"),
        ("[\"us-east-1a\",\"us-east-1b\"]", "[]", "somebody changed the tags of its security group"),
        ("\"name\":\"clusters\"", "\"name\":\"../x\"", "somebody changed the tags of its security group"),
        ("cluster2", "cluster1", "two groups have the name cluster1"),
    ] {
        let changed = definition.replacen(from, to, 1);
        assert_ne!(changed, definition);
        let error = Fleet::from_definition(&changed).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// An older version reads every fleet whose new settings are not used.
#[test]
fn a_setting_that_is_not_set_is_not_stored() {
    let keys = |fleet: &Fleet| {
        let definition: serde_json::Value = serde_json::from_str(&fleet.definition()).unwrap();
        definition.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    // All keys that version 0.1.0 wrote for every fleet. New ones never belong here.
    let mut always =
        ["name", "image", "zones", "port", "deregistration-delay", "health-check", "groups", "security"];
    always.sort_unstable();
    let of = |fleet: &Fleet| {
        let mut keys = keys(fleet);
        keys.sort_unstable();
        keys
    };
    for name in Fleet::built_in_names() {
        assert_eq!(of(&Fleet::parse(name, Fleet::built_in(name).unwrap()).unwrap()), always, "{name}");
    }
    for (text, key) in [
        ("key-pair = \"ops\"", "key-pair"),
        ("instance-profile = \"agent\"", "instance-profile"),
        ("[package]\nin-image = true", "package"),
        ("[tags]\na = \"1\"", "tags"),
    ] {
        let mut expected = always.to_vec();
        expected.push(key);
        expected.sort_unstable();
        assert_eq!(of(&with(text).unwrap()), expected);
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
