//! When `packaging/cached` treats a program or a package as unchanged, in a small tree of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tests::package::{ok, tool, tree};
use tokio::process::Command;

/// What the tree below begins with.
const FILES: [&str; 20] = [
    ".cargo/config.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "agent/Cargo.toml",
    "agent/server/Cargo.toml",
    "agent/server/src/lib.rs",
    "agent/src/lib.rs",
    "bootstrap/Cargo.toml",
    "bootstrap/fleets/one.toml",
    "bootstrap/local-cloud/Cargo.toml",
    "bootstrap/local-cloud/src/lib.rs",
    "bootstrap/src/plan/mod.rs",
    "packaging/build-release",
    "packaging/cloud-init.yaml",
    "packaging/generate/main.rs",
    "packaging/requirements.txt",
    "systemd/unit.service",
    "agent/aws/src/lib.rs",
    "agent/contract/src/lib.rs",
];

/// A tree of the shape of ours.
struct Tree(TempDir);

impl Tree {
    async fn new() -> Self {
        let new = Self(tempfile::tempdir().unwrap());
        for file in FILES {
            new.append(file);
        }
        for script in
            ["packaging/cached", "packaging/linker/ld", "tests/bin/cache-dir", "tests/bin/tool-path"]
        {
            new.append(script);
            fs::copy(tree().join(script), new.path(script)).unwrap();
        }
        new.git(&["init", "--quiet"], "0").await;
        new.commit("1000").await;
        new
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Makes a file, or a longer one of it.
    fn append(&self, file: &str) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        fs::write(self.path(file), text + "line\n").unwrap();
    }

    async fn git(&self, words: &[&str], time: &str) {
        let mut git = tool("git");
        git.args(["-c", "user.name=n", "-c", "user.email=e"]).args(words).current_dir(self.0.path());
        // The developer's own settings may sign commits or run hooks.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.env("GIT_COMMITTER_DATE", format!("@{time} +0000"));
        ok(&mut git).await;
    }

    async fn commit(&self, time: &str) {
        self.git(&["add", "--all", ":!cache"], time).await;
        self.git(&["commit", "--quiet", "--message", "m"], time).await;
    }

    fn cached(&self, words: &[&str]) -> Command {
        let mut cached = tool(self.path("packaging/cached"));
        cached.args(words).current_dir(self.0.path()).env("PACKAGING_CACHE_DIR", self.path("cache"));
        cached
    }

    /// The entries of both programs and of their packages.
    async fn entries(&self) -> [String; 4] {
        [
            ok(&mut self.cached(&["program", "instance-agent", "x86_64"])).await,
            ok(&mut self.cached(&["program", "bootstrap", "x86_64"])).await,
            ok(&mut self.cached(&["package", "instance-agent", "x86_64", "1.0", "1000"])).await,
            ok(&mut self.cached(&["package", "bootstrap", "x86_64", "1.0", "1000"])).await,
        ]
    }
}

#[tokio::test]
async fn what_is_built_and_packaged_decides_the_entry() {
    let tree = Tree::new().await;
    let first = tree.entries().await;
    let mut before = first.clone();
    // Both programs, then both packages.
    for (file, expected) in [
        // The package of bootstrap holds the agent's.
        ("agent/src/lib.rs", [true, false, true, true]),
        ("agent/server/src/lib.rs", [true, false, true, true]),
        ("agent/server/Cargo.toml", [true; 4]),
        ("bootstrap/src/plan/mod.rs", [false, true, false, true]),
        ("bootstrap/local-cloud/src/lib.rs", [false, true, false, true]),
        ("bootstrap/fleets/one.toml", [false, true, false, true]),
        ("packaging/cloud-init.yaml", [false, true, true, true]),
        ("agent/aws/src/lib.rs", [true; 4]),
        ("agent/contract/src/lib.rs", [true; 4]),
        ("bootstrap/Cargo.toml", [true; 4]),
        ("Cargo.lock", [true; 4]),
        (".cargo/config.toml", [true; 4]),
        ("packaging/build-release", [true; 4]),
        ("packaging/linker/ld", [true; 4]),
        ("packaging/generate/main.rs", [false, false, true, true]),
        ("systemd/unit.service", [false, false, true, true]),
        ("CHANGELOG.md", [false, false, true, true]),
        ("docs/usage.md", [false; 4]),
        ("tests/bin/lint", [false; 4]),
        ("bootstrap/src/plan/tests.rs", [false; 4]),
    ] {
        // Not committed: what counts is what is there.
        tree.append(file);
        let after = tree.entries().await;
        let changed: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
        assert_eq!(changed, expected, "{file}");
        before = after;
    }
    tree.git(&["reset", "--quiet", "--hard"], "0").await;
    tree.git(&["clean", "--quiet", "-d", "--force"], "0").await;
    assert_eq!(tree.entries().await, first);
}

#[tokio::test]
async fn other_settings_of_cargo_are_another_program() {
    let tree = Tree::new().await;
    let words = ["program", "instance-agent", "x86_64"];
    let plain = ok(&mut tree.cached(&words)).await;
    for (name, same) in [("CARGO_PROFILE_RELEASE_LTO", false), ("CC", false), ("CARGO_TARGET_DIR", true)] {
        let other = ok(tree.cached(&words).env(name, "/a_b")).await;
        assert_eq!(other == plain, same, "{name}");
    }
}

#[tokio::test]
async fn the_date_is_that_of_the_last_commit_that_touched_what_is_packaged() {
    let tree = Tree::new().await;
    for (file, time, expected) in [
        ("docs/usage.md", "2000", "1000\n"),
        ("bootstrap/src/plan/tests.rs", "3000", "1000\n"),
        ("bootstrap/src/plan/mod.rs", "4000", "4000\n"),
        ("tests/bin/lint", "5000", "4000\n"),
        ("CHANGELOG.md", "6000", "6000\n"),
    ] {
        tree.append(file);
        tree.commit(time).await;
        assert_eq!(ok(&mut tree.cached(&["date"])).await, expected, "{file}");
    }
}

#[tokio::test]
async fn the_entries_used_last_are_kept() {
    let tree = Tree::new().await;
    let used = async || PathBuf::from(ok(&mut tree.cached(&["program", "bootstrap", "x86_64"])).await.trim());
    let entry = used().await;
    let keep = async |entry: &Path| ok(tree.cached(&["keep", "Cargo.toml"]).arg(entry)).await;
    keep(&entry).await;
    assert_eq!(fs::read(&entry).unwrap(), fs::read(tree.path("Cargo.toml")).unwrap());
    let now = SystemTime::now();
    for age in 1..=70 {
        let other = File::create(entry.with_file_name(format!("{age}"))).unwrap();
        other.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    File::open(&entry).unwrap().set_modified(now - Duration::from_secs(1000)).unwrap();
    used().await;
    keep(&entry.with_file_name("new")).await;
    let kept: BTreeSet<_> =
        fs::read_dir(entry.parent().unwrap()).unwrap().map(|file| file.unwrap().path()).collect();
    let youngest = (1..=62).map(|age| entry.with_file_name(format!("{age}")));
    assert_eq!(kept, youngest.chain([entry.clone(), entry.with_file_name("new")]).collect());
}
