//! The signed apt repository, through the eyes of a real apt: its own folders, a web server on
//! loopback, no other source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;
use tests::apt_repository::{make_key, publish};
use tests::package::{dist, ok, output, tool};
use tests::{eventually, text};
use tokio::process::{Child, Command};

/// A repository of our packages on a web server, and a machine that uses it.
struct Repository {
    folder: TempDir,
    _server: Child,
    port: u16,
}

impl Repository {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        fs::create_dir(&site).unwrap();
        make_key(&folder.path().join("keys")).await;
        let mut server = tool("python3");
        server.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0", "--directory"]).arg(&site);
        let log = folder.path().join("server.log");
        let out = fs::File::create(&log).unwrap();
        let server = server.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        // Its first line names the port that it got.
        let named = async || {
            let said = fs::read_to_string(&log).unwrap();
            said.split_once(" port ")?.1.split_whitespace().next()?.parse().ok()
        };
        let port = eventually(named).await.expect("a web server");
        let repository = Self { folder, _server: server, port };
        ok(&mut repository.publish(&[])).await;
        repository.set_up_machine();
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The script that makes it, or adds to it.
    fn publish(&self, packages: &[&Path]) -> Command {
        publish(&self.path("keys"), &self.path("site"), packages)
    }

    /// A machine's folders, with the source that docs/installation.md gives.
    fn set_up_machine(&self) {
        for name in ["state/lists/partial", "cache/archives/partial", "got"] {
            fs::create_dir_all(self.path(name)).unwrap();
        }
        for name in ["apt.conf.d", "auth.conf.d", "preferences.d", "sources.list.d", "trusted.gpg.d"] {
            fs::create_dir_all(self.path("etc").join(name)).unwrap();
        }
        fs::write(self.path("state/status"), "").unwrap();
        fs::copy(self.path("site/instance-agent.asc"), self.path("etc/instance-agent.asc")).unwrap();
        let source = format!(
            "Types: deb\nURIs: http://127.0.0.1:{}\nSuites: stable\nComponents: main\n\
             Architectures: amd64 arm64\nSigned-By: {}\n",
            self.port,
            self.path("etc/instance-agent.asc").display()
        );
        fs::write(self.path("etc/sources.list.d/instance-agent.sources"), source).unwrap();
        // Read before all other settings, it keeps out those of the tester's machine.
        let mut settings = String::new();
        for (key, value) in [
            ("Dir::State", "state"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc", "etc"),
        ] {
            settings.push_str(&format!("{key} \"{}\";\n", self.path(value).display()));
        }
        settings.push_str(
            "APT::Architecture \"amd64\";\nAPT::Architectures { \"amd64\"; \"arm64\"; };\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::http::Proxy \"DIRECT\";\n",
        );
        fs::write(self.path("apt.conf"), settings).unwrap();
    }

    /// apt on that machine.
    async fn apt(&self, arguments: &[&str]) -> Output {
        let mut apt = tool("apt-get");
        apt.env("APT_CONFIG", self.path("apt.conf"));
        output(apt.args(arguments).current_dir(self.path("got"))).await
    }

    /// An update from nothing.
    async fn update(&self) -> Output {
        let lists = self.path("state/lists");
        fs::remove_dir_all(&lists).unwrap();
        fs::create_dir_all(lists.join("partial")).unwrap();
        self.apt(&["update", "--error-on=any"]).await
    }

    /// Changes one byte of a published file: the last that stands for `from`.
    fn damage(&self, name: &str, from: &str, to: &str) {
        let path = self.path("site").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at =
            bytes.windows(from.len()).rposition(|window| window == from.as_bytes()).expect("it is there");
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, bytes).unwrap();
    }
}

fn refused(output: &Output, reason: &str) {
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains(reason), "{}{said}", text(&output.stdout));
}

fn accepted(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!text(&output.stderr).contains("W:"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn apt_installs_both_programs_from_it_for_both_kinds_of_processor() {
    let repository = Repository::start().await;
    accepted(&repository.update().await);
    let plan = repository.apt(&["install", "--simulate", "instance-agent", "instance-bootstrap"]).await;
    accepted(&plan);
    for name in ["instance-agent", "instance-bootstrap"] {
        let line = format!("Inst {name} ({} ", env!("CARGO_PKG_VERSION"));
        assert!(text(&plan.stdout).contains(&line), "{}", text(&plan.stdout));
    }
    for (name, architecture) in [
        ("instance-agent", "amd64"),
        ("instance-agent", "arm64"),
        ("instance-bootstrap", "amd64"),
        ("instance-bootstrap", "arm64"),
    ] {
        accepted(&repository.apt(&["download", &format!("{name}:{architecture}")]).await);
        let file = format!("{name}_{}_{architecture}.deb", env!("CARGO_PKG_VERSION"));
        let same =
            fs::read(repository.path("got").join(&file)).unwrap() == fs::read(dist().join(&file)).unwrap();
        assert!(same, "{file}");
    }
}

#[tokio::test]
async fn apt_refuses_it_once_the_list_of_files_was_changed() {
    for (file, reason) in [
        ("dists/stable/InRelease", "BADSIG"),
        ("dists/stable/main/binary-amd64/Packages.xz", "Hash Sum mismatch"),
    ] {
        let repository = Repository::start().await;
        accepted(&repository.update().await);
        if file.ends_with(".xz") {
            // Under all names that apt may ask for it.
            let folder = repository.path("site/dists/stable/main/binary-amd64");
            let good = fs::read(folder.join("Packages.xz")).unwrap();
            let damaged = [&good[..good.len() - 1], &[!good[good.len() - 1]]].concat();
            fs::write(folder.join("Packages.xz"), &damaged).unwrap();
            for entry in fs::read_dir(folder.join("by-hash/SHA256")).unwrap() {
                let path = entry.unwrap().path();
                if fs::read(&path).unwrap() == good {
                    fs::write(&path, &damaged).unwrap();
                }
            }
        } else {
            repository.damage(file, "Suite: stable", "Suite: stabla");
        }
        refused(&repository.update().await, reason);
    }
}

#[tokio::test]
async fn apt_refuses_a_package_that_was_changed() {
    let repository = Repository::start().await;
    accepted(&repository.update().await);
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("pool/main/instance-agent/instance-agent_{version}_amd64.deb");
    repository.damage(&name, "data.tar.xz", "date");
    refused(&repository.apt(&["download", "instance-agent"]).await, "Hash Sum mismatch");
}

#[tokio::test]
async fn apt_refuses_another_key() {
    let repository = Repository::start().await;
    accepted(&repository.update().await);
    fs::rename(repository.path("keys"), repository.path("lost-keys")).unwrap();
    make_key(&repository.path("keys")).await;
    ok(&mut repository.publish(&[])).await;
    // The machine goes on trusting the key that it was set up with.
    refused(&repository.update().await, "NO_PUBKEY");
}

#[tokio::test]
async fn a_new_version_is_added_and_a_published_one_never_changes() {
    let repository = Repository::start().await;
    accepted(&repository.update().await);
    let newer = repository.path("newer");
    let mut make = tool("packaging/make-deb");
    make.args(["--package-only", "--deb-version", "99.1", "amd64", "--out"]).arg(&newer);
    ok(&mut make).await;
    let package = newer.join("instance-agent_99.1_amd64.deb");
    ok(&mut repository.publish(&[&package])).await;
    accepted(&repository.update().await);
    for version in ["99.1", env!("CARGO_PKG_VERSION")] {
        accepted(&repository.apt(&["download", &format!("instance-agent={version}")]).await);
    }
    let newest = repository.apt(&["install", "--simulate", "instance-agent"]).await;
    assert!(text(&newest.stdout).contains("Inst instance-agent (99.1 "), "{}", text(&newest.stdout));

    // The same name and version with other contents.
    let changed = newer.join("changed.deb");
    let mut make = tool("packaging/make-deb");
    make.args(["--package-only", "--deb-version", "99.1", "amd64", "--out"]).arg(newer.join("again"));
    ok(make.env("SOURCE_DATE_EPOCH", "1700000000")).await;
    fs::rename(newer.join("again/instance-agent_99.1_amd64.deb"), &changed).unwrap();
    assert!(fs::read(&changed).unwrap() != fs::read(&package).unwrap());
    refused(&output(&mut repository.publish(&[&changed])).await, "higher version");
    accepted(&repository.update().await);
}
