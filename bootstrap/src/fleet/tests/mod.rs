//! Fleet files and stored definitions, right and wrong.

use std::io;
use std::time::Duration;

use super::*;

mod keys;
mod mistakes;
mod stored;

fn clusters() -> &'static str {
    Fleet::built_in("clusters").unwrap()
}

/// A key in the form that gpg writes.
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

/// The mistake of `clusters` with this before its first table.
fn message(text: &str) -> String {
    let error = with(text).unwrap_err().to_string();
    error.strip_prefix("folder/f:").map(str::to_owned).unwrap()
}

#[test]
fn a_fleet_as_a_file_has_every_default_and_reads_as_the_same_fleet() {
    let changed = with(
        "key-pair = 'k'\ninstance-profile = 'p'\n[package]\nin-image = true\n[tags]\n'a:b' = 'x y'\n[security]\nports = [8080]",
    );
    let built_in = |name| Fleet::parse(name, Fleet::built_in(name).unwrap()).unwrap();
    for fleet in [built_in("clusters"), built_in("seed"), changed.unwrap()] {
        let text = fleet.to_file();
        assert_eq!(Fleet::parse("f", &text).unwrap(), fleet, "{text}");
        for key in ["port = ", "balancer-allow = ", "unhealthy = ", "weight = ", "root = ", "paths = "] {
            assert!(text.contains(key), "{key} in {text}");
        }
    }
    let url = format!("[package]\nurl = 'https://a/b.deb?sig=1'\nsha256 = '{}'", "0".repeat(64));
    let text = with(&url).unwrap().to_file();
    assert!(text.contains("url = \"https://a/b.deb\"\n# ") && !text.contains("sig=1"), "{text}");
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
    assert_eq!(error, "fleet clusters has no group named cluster3; its groups: cluster1, cluster2");
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
        ("internal-staging", "AWS refuses load balancers"),
        ("staging-of-clusters", "the target group's name staging-of-clusters-cluster2-of-two"),
    ] {
        let error = fleet.rename(name).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(fleet.name, "clusters");
    }
}

#[test]
fn the_documentation_has_every_key_and_its_examples_are_right() {
    let text = include_str!("../../../../docs/fleet-files.md");
    for (table, keys) in file::KEYS {
        for key in *keys {
            let whole = format!("{table}{key}");
            let listed = text.contains(&format!("`{whole}`")) || text.contains(&format!("`.{key}`"));
            let shown = text.contains(&format!("\n{key} = "));
            let inner = file::KEYS.iter().any(|(inner, _)| *inner == format!("{whole}."));
            assert!(listed || shown || inner, "{whole} is missing");
        }
    }
    let smallest = text.split("```\n").find(|block| block.starts_with("name = ")).unwrap();
    Fleet::parse("f", smallest).unwrap();
    let examples: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let file = clusters().replacen("[health-check]", &format!("{example}\n[health-check]"), 1);
        Fleet::parse_with("f", &file, &|_| Ok(KEY.to_owned())).unwrap();
    }
}
