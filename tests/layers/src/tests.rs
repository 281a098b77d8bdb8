//! Small crates that are right or wrong in one way each, and the real launcher, broken in one way each.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::check::TABLE;
use crate::run;

/// A crate with three floors and one dependency of each kind.
const TABLE_OF_HOUSE: &str = r#"
[house]
src = "house/src"

[[house.floors]]
holds = "the program"
rooms = ["main.rs"]
imports = ["all below"]

[[house.floors]]
holds = "the top"
rooms = ["lib.rs", "top.rs"]
imports = ["top.rs", "all below"]

[[house.floors]]
holds = "the middle"
rooms = ["middle/", "beside.rs"]
imports = ["ground/", "beside.rs"]

[[house.floors]]
holds = "the ground"
rooms = ["ground/"]
imports = []

[house.only]
"aws-sdk-*" = ["middle/"]
"#;

const MANIFEST_OF_HOUSE: &str = r#"
[package]
name = "house"

[dependencies]
aws-sdk-ec2 = "1"
anyhow.workspace = true
"#;

/// The sources of a house in which all is well.
const HOUSE: &[(&str, &str)] = &[
    ("main.rs", "fn main() {\n    house::Top;\n}\n"),
    ("lib.rs", "mod beside;\nmod ground;\nmod middle;\nmod top;\npub use top::Top;\n"),
    ("top.rs", "use crate::{ground, middle::Middle};\npub struct Top(Middle, ground::Stone);\n"),
    (
        "middle/mod.rs",
        "mod inner;\npub use inner::Inner;\nuse aws_sdk_ec2::Client;\npub struct Middle(crate::ground::Stone);\n",
    ),
    ("middle/inner.rs", "use crate::beside::Beside;\npub struct Inner;\n"),
    ("beside.rs", "pub struct Beside;\n"),
    ("ground/mod.rs", "mod sand;\nmod stone;\npub use sand::Sand;\npub use stone::Stone;\n"),
    ("ground/stone.rs", "use super::Sand;\npub struct Stone(Sand);\n"),
    ("ground/sand.rs", "pub struct Sand;\n"),
];

/// The repository of a house, with `changed` files of its sources in place of those above or beside them.
fn house(table: &str, changed: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[workspace.dependencies]\nanyhow = \"1\"\ncellar = { path = \"cellar\" }\n");
    write("house/Cargo.toml", MANIFEST_OF_HOUSE);
    write(TABLE, table);
    for (path, text) in HOUSE.iter().chain(changed) {
        write(&format!("house/src/{path}"), text);
    }
    root
}

/// What the check says of a house, without "house/src/".
fn failures(changed: &[(&str, &str)]) -> Vec<String> {
    failures_by(TABLE_OF_HOUSE, changed)
}

fn failures_by(table: &str, changed: &[(&str, &str)]) -> Vec<String> {
    let failures = run(house(table, changed).path()).unwrap().failures;
    failures.into_iter().map(|failure| failure.replace("house/src/", "")).collect()
}

/// Asserts that the check says one thing of the house, of `place`, and that it contains `text`.
#[track_caller]
fn assert_one(changed: &[(&str, &str)], place: &str, text: &str) {
    let failures = failures(changed);
    let [failure] = failures.as_slice() else { panic!("not one failure: {failures:#?}") };
    assert!(failure.starts_with(&format!("{place}: ")) && failure.contains(text), "{failure}");
}

#[test]
fn a_house_in_which_all_is_well_passes() {
    assert_eq!(failures(&[]), Vec::<String>::new());
}

/// Every way to name `crate::beside` and `crate::top`, from a room of the ground floor.
#[test]
fn an_import_that_runs_upward_is_found_however_it_is_written() {
    let cases = [
        ("use crate::beside::Beside;", 1),
        ("pub use crate::beside::Beside as Other;", 1),
        ("use crate::{\n    middle as _unused,\n    beside::{self as b, Beside},\n};", 2),
        ("use crate::beside::*;", 1),
        ("use super::super::beside;", 1),
        ("fn f() {\n    crate::beside::f();\n}", 2),
        ("fn f() {\n    super::super::beside::f();\n}", 2),
        ("fn f() {\n    use crate::beside as b;\n    b::f();\n}", 2),
        ("fn f() {\n    use super::super as up;\n    up::beside::f();\n}", 3),
        ("struct S {\n    f: Vec<crate::beside::Beside>,\n}", 2),
        ("fn f(_: &dyn Fn() -> crate::beside::Beside) {}", 1),
        ("impl From<crate::beside::Beside> for Sand {}", 1),
        ("fn f() {\n    let _ = <Sand as crate::beside::Trait>::f();\n}", 2),
        ("fn f() {\n    println!(\"{}\",\n        crate::beside::NAME);\n}", 3),
        (
            "fn f() {\n    select! {\n        _ = a => { let x: Vec<super::super::beside::X> = b.c::<u8>(); }\n    }\n}",
            3,
        ),
        ("fn f() {\n    select! {\n        _ => { use crate::beside::X; }\n    }\n}", 3),
        ("crate::beside::make!();", 1),
        ("macro_rules! m {\n    () => { $crate::beside::f() };\n}", 2),
        ("#[serde(with = \"crate::beside\")]\nstruct S;", 1),
        ("struct S {\n    #[arg(value_parser = crate::beside::parse)]\n    f: u8,\n}", 2),
        ("#[crate::beside::attribute]\nfn f() {}", 1),
        ("mod inline {\n    fn f() {\n        super::super::super::beside::f();\n    }\n}", 3),
    ];
    for (code, line) in cases {
        let text = format!("pub struct Sand;\n{code}\n");
        let failures = failures(&[("ground/sand.rs", &text)]);
        let expected = format!("ground/sand.rs:{}: ground/ imports ", line + 1);
        assert!(failures.iter().any(|failure| failure.starts_with(&expected)), "{code}\n{failures:#?}");
    }
}

#[test]
fn an_import_says_from_where_to_where() {
    assert_one(
        &[(
            "ground/sand.rs",
            "pub struct Sand;\nuse crate::beside::Beside;\nfn f() { crate::beside::f() }\n",
        )],
        "ground/sand.rs:2",
        "ground/ imports beside.rs (crate::beside::Beside, from ground/sand.rs to beside.rs), 1 floor up: ",
    );
    assert_one(
        &[("beside.rs", "fn f() {\n    crate::middle::f()\n}\n"), ("middle/inner.rs", "pub struct Inner;\n")],
        "beside.rs:2",
        "beside.rs imports middle/ (crate::middle::f, from beside.rs to middle/mod.rs), on the same floor but not in its list (tests/layers.toml:18)",
    );
}

#[test]
fn a_name_that_mod_or_use_brings_is_followed() {
    // `ground` by its `mod` in lib.rs, `b` by a `use` beside it, both in a body.
    assert_one(
        &[(
            "ground/mod.rs",
            "mod sand;\nmod stone;\npub use sand::Sand;\npub use stone::Stone;\nuse super as all;\nfn f() {\n    all::beside::f();\n}\n",
        )],
        "ground/mod.rs:7",
        "ground/ imports beside.rs (all::beside::f",
    );
    // A parent that calls a child whose file names the parent's own item.
    assert_one(
        &[
            (
                "ground/mod.rs",
                "mod sand;\nmod stone;\npub use sand::Sand;\npub use stone::Stone;\nfn f() {\n    sand::g();\n}\n",
            ),
            ("ground/sand.rs", "pub struct Sand;\npub fn g() {\n    super::f()\n}\n"),
        ],
        "ground/mod.rs:3",
        "loop of imports: ground/mod.rs:3 -> ground/sand.rs:3 -> ground/mod.rs: ",
    );
}

#[test]
fn a_reexport_is_an_import_where_it_stands_and_leads_to_the_file_that_defines() {
    // The middle passes on a name of the ground: who imports it there imports the middle.
    let middle = "mod inner;\npub use inner::Inner;\nuse aws_sdk_ec2::Client;\npub use crate::ground::Sand as Passed;\n";
    let both = [
        ("middle/mod.rs", middle),
        ("beside.rs", "use crate::middle::Passed;\n"),
        ("middle/inner.rs", "pub struct Inner;\n"),
    ];
    assert_one(
        &both,
        "beside.rs:1",
        "beside.rs imports middle/ (crate::middle::Passed, from beside.rs to middle/mod.rs)",
    );
    // Siblings reach each other through a parent that only re-exports: no loop. One that comes back is one.
    assert_one(
        &[("ground/sand.rs", "pub struct Sand;\nuse super::Stone;\n")],
        "ground/sand.rs:2",
        "loop of imports: ground/sand.rs:2 -> ground/stone.rs:1 -> ground/sand.rs: ",
    );
    // Through a glob, too: only the names that the file mentions count.
    assert_eq!(failures(&[("ground/sand.rs", "use super::*;\npub struct Sand;\n")]), Vec::<String>::new());
    assert_one(
        &[("ground/sand.rs", "use super::*;\npub struct Sand;\nfn f(_: Stone) {}\n")],
        "ground/sand.rs:1",
        "loop of imports: ground/sand.rs:1 -> ground/stone.rs:1 -> ground/sand.rs: ",
    );
    // The root passes its rooms' names on to outsiders; a room that takes one there imports the other room.
    assert_one(
        &[("ground/sand.rs", "pub struct Sand;\nuse crate::Top;\n"), ("top.rs", "pub struct Top;\n")],
        "ground/sand.rs:2",
        "ground/ imports top.rs (crate::Top, from ground/sand.rs to top.rs), 2 floors up",
    );
}

#[test]
fn a_name_can_be_a_module_and_a_function() {
    let failures = failures(&[
        (
            "ground/mod.rs",
            "mod sand;\nmod stone;\npub use sand::sand;\npub use sand::Sand;\npub use stone::Stone;\n",
        ),
        ("ground/sand.rs", "pub struct Sand;\npub fn sand() {}\n"),
        (
            "beside.rs",
            "use anyhow::anyhow;\nfn f() -> anyhow::Error {\n    crate::ground::sand();\n    anyhow!(\"\")\n}\n",
        ),
    ]);
    assert_eq!(failures, Vec::<String>::new());
    // With a name after it, it is the module.
    assert_one(
        &[
            ("middle/mod.rs", "mod inner;\npub use inner::inner;\nuse aws_sdk_ec2::Client;\n"),
            ("middle/inner.rs", "pub struct Inner;\npub fn inner() {}\n"),
            ("top.rs", "pub struct Top;\n"),
            ("ground/sand.rs", "pub struct Sand;\nuse crate::middle::inner::Inner;\n"),
        ],
        "ground/sand.rs:2",
        "from ground/sand.rs to middle/inner.rs",
    );
}

#[test]
fn files_are_found_by_path_attributes_and_beside_their_folder() {
    assert_one(
        &[
            ("beside.rs", "#[path = \"beside/far.rs\"]\nmod near;\nmod deep;\npub struct Beside;\n"),
            ("beside/far.rs", "pub struct Far;\n"),
            ("beside/deep.rs", "mod deeper;\n"),
            ("beside/deep/deeper.rs", "use crate::top::Top;\n"),
            ("top.rs", "pub struct Top;\n"),
        ],
        "beside/deep/deeper.rs:1",
        "beside.rs imports top.rs",
    );
}

#[test]
fn tests_may_import_what_they_like() {
    let sand = "pub struct Sand;\n\
        #[cfg(test)]\nuse crate::top::Top;\n\
        #[cfg(all(test, unix))]\nfn f() { crate::top::f() }\n\
        impl Sand {\n    #[cfg(test)]\n    fn g() { crate::top::f() }\n}\n\
        #[cfg(test)]\nmod tests {\n    use super::super::super::top::*;\n    fn f() { aws_sdk_ec2::f() }\n}\n\
        #[cfg(test)]\nmod more;\n";
    let more = "mod most;\nuse crate::top::Top;\n";
    let changed = [
        ("ground/sand.rs", sand),
        ("ground/sand/more.rs", more),
        ("ground/sand/more/most.rs", more),
        ("ground/sand/more/most/most.rs", ""),
    ];
    assert_eq!(failures(&changed), Vec::<String>::new());
    let shipped = [
        ("ground/sand.rs", "pub struct Sand;\n#[cfg(not(test))]\nuse crate::top::Top;\n"),
        ("top.rs", "pub struct Top;\n"),
    ];
    assert_one(&shipped, "ground/sand.rs:3", "2 floors up");
}

#[test]
fn comments_strings_and_methods_are_not_taken_for_imports() {
    let sand = "pub struct Sand;\n\
        //! See [`crate::top::Top`].\n\
        pub(in crate::ground) fn f<T: Iterator>() -> T::Item { \"crate::top::Top\"; Self::top::<u8>(); }\n\
        fn g() { let top = a.top::<u8>(); std::mem::take(top); m!(x.crate_top::<u8>() $top::a) }\n"
        .replace("//! See", "/// See");
    assert_eq!(failures(&[("ground/sand.rs", &sand)]), Vec::<String>::new());
}

#[test]
fn every_loop_between_files_is_found_and_a_long_one_in_order() {
    assert_one(
        &[
            (
                "ground/mod.rs",
                "mod a;\nmod b;\nmod c;\nmod sand;\nmod stone;\npub use sand::Sand;\npub use stone::Stone;\n",
            ),
            ("ground/a.rs", "\nuse super::b::B;\npub struct A;\n"),
            ("ground/b.rs", "\n\npub struct B;\nfn f() { super::c::C; }\n"),
            ("ground/c.rs", "pub struct C;\nuse crate::ground::a::A;\n"),
        ],
        "ground/a.rs:2",
        "loop of imports: ground/a.rs:2 -> ground/b.rs:4 -> ground/c.rs:2 -> ground/a.rs: ",
    );
}

#[test]
fn rooms_and_files_that_nobody_lists_or_declares_are_named() {
    let lib = "mod attic;\nmod beside;\nmod ground;\nmod middle;\nmod top;\n";
    assert_one(
        &[("lib.rs", lib), ("attic/mod.rs", "mod box_;\n"), ("attic/box_.rs", "")],
        "attic/box_.rs:1",
        "no floor lists attic/: add it to tests/layers.toml",
    );
    assert_one(&[("ground/dust.rs", "")], "ground/dust.rs:1", "no `mod` declares this file");
}

#[test]
fn crates_are_named_only_where_they_may_be() {
    assert_one(
        &[("beside.rs", "pub struct Beside;\nfn f() {\n    let _ = aws_sdk_ec2::Client::new();\n}\n")],
        "beside.rs:3",
        "beside.rs names the crate aws-sdk-ec2, which tests/layers.toml keeps to middle/: ",
    );
    // A re-export does not hide it.
    let middle = "mod inner;\npub use inner::Inner;\npub use aws_sdk_ec2 as ec2;\n";
    assert_one(
        &[("middle/mod.rs", middle), ("top.rs", "use crate::middle::ec2;\npub struct Top(ec2::Client);\n")],
        "top.rs:1",
        "top.rs names the crate aws-sdk-ec2",
    );
}

#[test]
fn crates_of_the_workspace_are_imported_only_where_they_are_listed() {
    let cellar = "\n[cellar]\nsrc = \"cellar/src\"\n\n[[cellar.floors]]\nholds = \"all\"\nrooms = [\"lib.rs\"]\nimports = []\n";
    let listed =
        TABLE_OF_HOUSE.replace("imports = [\"ground/\", ", "imports = [\"cellar\", \"ground/\", ") + cellar;
    for (table, depends, sand, expected) in [
        (
            TABLE_OF_HOUSE.to_owned() + cellar,
            true,
            "",
            "house/Cargo.toml:8: house depends on cellar, a crate of this workspace that no floor",
        ),
        (
            listed.clone(),
            true,
            "fn f() { cellar::f() }",
            "house/src/ground/sand.rs:2: ground/ imports the crate cellar",
        ),
        (listed.clone(), true, "", ""),
        (listed, false, "", "tests/layers.toml:18: house does not depend on cellar: delete the entry"),
    ] {
        let root = house(&table, &[("ground/sand.rs", &format!("pub struct Sand;\n{sand}\n"))]);
        fs::create_dir_all(root.path().join("cellar/src")).unwrap();
        fs::write(root.path().join("cellar/Cargo.toml"), "[package]\nname = \"cellar\"\n").unwrap();
        fs::write(root.path().join("cellar/src/lib.rs"), "").unwrap();
        if depends {
            fs::write(
                root.path().join("house/Cargo.toml"),
                format!("{MANIFEST_OF_HOUSE}cellar.workspace = true\n"),
            )
            .unwrap();
        }
        let failures = run(root.path()).unwrap().failures;
        match failures.as_slice() {
            [] => assert_eq!(expected, ""),
            [failure] => {
                assert!(!expected.is_empty() && failure.starts_with(expected), "{failure}\n{expected}")
            }
            _ => panic!("{failures:#?}"),
        }
    }
}

#[test]
fn the_table_lists_only_what_exists_and_nothing_upward() {
    let cases = [
        (
            "[\"ground/\"]",
            "[\"ground/\", \"moat/\"]",
            "tests/layers.toml:22: moat/ does not exist: delete the entry",
        ),
        ("[\"ground/\"]", "[\"ground/\", \"beside.rs\"]", "tests/layers.toml:22: beside.rs is listed twice"),
        ("imports = []", "imports = [\"top.rs\"]", "tests/layers.toml:23: top.rs is on a higher floor"),
        (
            "imports = []",
            "imports = [\"moat/\"]",
            "tests/layers.toml:23: moat/ is neither a room of house nor a crate",
        ),
        (
            "\"beside.rs\"]\n\n",
            "\"beside.rs\", \"middle/\"]\n\n",
            "tests/layers.toml:18: beside.rs and another room",
        ),
        ("[\"middle/\"]\n", "[\"middle/\", \"moat.rs\"]\n", "tests/layers.toml:26: moat.rs does not exist"),
        ("\"aws-sdk-*\"", "\"gcp-*\"", "tests/layers.toml:26: house depends on no crate gcp-*"),
        ("src = \"house/src\"", "src = \"hut/src\"", "tests/layers.toml:3: hut/src does not exist"),
    ];
    for (before, after, expected) in cases {
        let table = TABLE_OF_HOUSE.replacen(before, after, 1);
        let failures = failures_by(&table, &[]);
        assert!(failures.iter().any(|failure| failure.starts_with(expected)), "{expected}\n{failures:#?}");
    }
}

#[test]
fn exceptions_hold_for_one_import_and_end_with_it() {
    let table = |listed: &str| format!("{TABLE_OF_HOUSE}\n[house.exceptions]\n\"issue 7\" = [{listed}]\n");
    let upward =
        [("ground/sand.rs", "pub struct Sand;\nuse crate::beside::Beside;\nfn f() { aws_sdk_ec2::f() }\n")];
    let both = "\"ground/sand.rs -> beside.rs\", \"ground/sand.rs -> aws-sdk-ec2\"";
    assert_eq!(failures_by(&table(both), &upward), Vec::<String>::new());
    let stale = |import: &str| {
        format!(
            "tests/layers.toml:29: nothing needs the exception \"ground/sand.rs -> {import}\" any more: delete the entry"
        )
    };
    assert_eq!(failures_by(&table(both), &[]), [stale("aws-sdk-ec2"), stale("beside.rs")]);

    let circle = [("ground/sand.rs", "pub struct Sand;\nuse super::Stone;\n")];
    let back = "\"ground/sand.rs -> ground/stone.rs\"";
    assert_eq!(failures_by(&table(back), &circle), Vec::<String>::new());
    // One is enough to open the loop: the list holds no more than that.
    let two = format!("{back}, \"ground/stone.rs -> ground/sand.rs\"");
    assert_eq!(failures_by(&table(&two), &circle), [stale("ground/stone.rs")]);
}

#[test]
fn the_measured_table_has_heights_lines_and_imports() {
    let table = run(house(TABLE_OF_HOUSE, &[]).path()).unwrap().table;
    let expected = "\
house (house/src): 6 rooms, 5 high, 6 imports
1. the program
    5  main.rs        3  lib.rs
2. the top
    4  lib.rs         5  top.rs
    3  top.rs         2  ground/, middle/
3. the middle
    2  middle/        6  beside.rs, ground/
    1  beside.rs      1
4. the ground
    1  ground/        7

";
    assert_eq!(table, expected);
}

/// The repository's own root.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The launcher's own sources with every kind of fault at once; each is reported at its place.
#[test]
fn faults_in_the_launcher_are_caught_at_file_and_line() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let src = root.join("bootstrap/src");
    copy(&repository().join("bootstrap/src"), &src);
    fs::create_dir(root.join("tests")).unwrap();
    for file in ["Cargo.toml", "bootstrap/Cargo.toml", TABLE] {
        fs::copy(repository().join(file), root.join(file)).unwrap();
    }
    // Not empty: the other crates are missing here.
    let before = run(root).unwrap().failures;

    let append = |path: &Path, line: &str| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
        text.lines().count() + 1
    };
    let mut expected = Vec::new();
    for (file, line, text) in [
        ("fleet/values.rs", "use crate::plan::Plan as Upward;", "fleet/ imports plan/"),
        ("plan/mod.rs", "pub(crate) use crate::cloud::Cloud as Upward;", "plan/ imports cloud/"),
        ("policy/calls.rs", "fn upward() { crate::cloud::ec2::call() }", "policy/ imports cloud/"),
        ("fleet/toml_table.rs", "fn upward() { super::super::cloud::call() }", "fleet/ imports cloud/"),
        ("verify/http.rs", "fn upward() { println!(\"{}\", crate::plan::NAME) }", "verify/ imports plan/"),
        (
            "user_data.rs",
            "#[serde(with = \"crate::cloud::ec2\")] struct Upward;",
            "user_data.rs imports cloud/",
        ),
        ("plan/members.rs", "fn call() { aws_sdk_ec2::Client::new() }", "plan/ names the crate aws-sdk-ec2"),
        (
            "output/mod.rs",
            "mod inline { fn upward() { super::super::fleet::call() } }",
            "output/ imports fleet/",
        ),
    ] {
        let line = append(&src.join(file), line);
        expected.push(format!("bootstrap/src/{file}:{line}: {text}"));
    }

    // A loop between two files of one folder that did not import each other.
    fs::write(src.join("cloud/here.rs"), "use super::there::Thing;\n").unwrap();
    fs::write(src.join("cloud/there.rs"), "pub(super) struct Thing;\nfn back() { super::here::back() }\n")
        .unwrap();
    append(&src.join("cloud/mod.rs"), "mod here;\nmod there;");
    expected.push(
        "bootstrap/src/cloud/here.rs:1: loop of imports: cloud/here.rs:1 -> cloud/there.rs:2 -> cloud/here.rs: ".to_owned(),
    );

    // A folder that no floor lists.
    fs::create_dir(src.join("attic")).unwrap();
    fs::write(src.join("attic/mod.rs"), "").unwrap();
    append(&src.join("lib.rs"), "mod attic;");
    expected.push("bootstrap/src/attic/mod.rs:1: no floor lists attic/: ".to_owned());

    // An exception that nothing needs.
    let text = fs::read_to_string(root.join(TABLE)).unwrap();
    let section = "[bootstrap.exceptions]\n";
    let (start, rest) = text.split_once(section).unwrap_or((&text, ""));
    fs::write(root.join(TABLE), format!("{start}{section}\"issue 0\" = [\"deb/ -> main.rs\"]\n{rest}"))
        .unwrap();
    let line = start.lines().count() + 2;
    expected.push(format!("{TABLE}:{line}: nothing needs the exception \"deb/ -> main.rs\" any more: "));

    let after = run(root).unwrap().failures;
    for expected in expected {
        assert!(!before.iter().any(|failure| failure.starts_with(&expected)), "{expected}");
        assert!(after.iter().any(|failure| failure.starts_with(&expected)), "{expected}\n{after:#?}");
    }
}
