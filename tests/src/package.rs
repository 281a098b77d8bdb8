//! The packages that `make deb` made, and the tools that look into them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::text;

/// How long a tool may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(600);

/// The tree that everything was built from.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree").to_owned()
}

/// The folder of the packages.
pub fn dist() -> PathBuf {
    std::env::var_os("TESTS_DIST").expect("TESTS_DIST is set by tests/bin/run-tests; run `make e2e`").into()
}

/// A tool of the machine with English output and nothing to read.
pub fn tool(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env("LC_ALL", "C.UTF-8").current_dir(tree()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a tool to its end.
pub async fn output(command: &mut Command) -> Output {
    crate::output(command, PATIENCE).await
}

/// Runs a tool that has to succeed; what it printed.
pub async fn ok(command: &mut Command) -> String {
    let output = output(command).await;
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// One of our packages.
pub struct Package {
    /// The file.
    pub path: PathBuf,
    /// The package's name.
    pub name: &'static str,
    /// Debian's name of its kind of processor.
    pub architecture: &'static str,
    /// The program that it brings.
    pub program: &'static str,
}

/// All four packages.
pub fn all() -> Vec<Package> {
    let of = |name: &'static str| ["amd64", "arm64"].map(|architecture| package(name, architecture));
    [of("instance-agent"), of("instance-bootstrap")].into_iter().flatten().collect()
}

/// The package of this name and kind of processor, in the version of this tree.
pub fn package(name: &'static str, architecture: &'static str) -> Package {
    let path = dist().join(format!("{name}_{}_{architecture}.deb", env!("CARGO_PKG_VERSION")));
    let program = if name == "instance-agent" { "instance-agent" } else { "bootstrap" };
    Package { path, name, architecture, program }
}

impl Package {
    /// A field of its control file; empty where it has none.
    pub async fn field(&self, name: &str) -> String {
        let shown = ok(tool("dpkg-deb").arg("--field").arg(&self.path).arg(name)).await;
        shown.trim_end().to_owned()
    }

    /// What it installs and its control files, under a new folder.
    pub async fn unpack(&self) -> Unpacked {
        let folder = tempfile::tempdir().expect("a temporary folder");
        ok(tool("dpkg-deb").arg("--raw-extract").arg(&self.path).arg(folder.path())).await;
        Unpacked { folder }
    }
}

/// An unpacked package; removed when dropped.
pub struct Unpacked {
    folder: TempDir,
}

impl Unpacked {
    /// One of its files, named as on the machine that it would be installed on.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name.trim_start_matches('/'))
    }

    /// A text file's contents.
    pub fn text(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The names in a folder, in order.
    pub fn list(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}
