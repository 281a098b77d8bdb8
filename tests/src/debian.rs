//! Root file systems and packages: what a booted Debian is made of.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::package::{ok, tool};

/// A script of `tests/bin`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bin").join(name)
}

/// The folder of a root file system, made if it is missing. Nobody may write into it.
pub async fn root(name: &str) -> PathBuf {
    let output = Command::new(script("debian-root")).args(["--make", name]).output().await;
    let output = output.expect("bash is there");
    assert!(output.status.success(), "{}", crate::text(&output.stderr));
    crate::text(&output.stdout).trim().into()
}

/// Our package of this name for this machine.
pub fn package(name: &'static str) -> PathBuf {
    crate::package::package(name, "amd64").path
}

/// Another version of a package of ours: the same with this version number, and whatever else `change`
/// does to its files, which are below the folder that it is given.
pub async fn another_version(
    package: &Path,
    version: &str,
    change: impl FnOnce(&Path),
) -> tempfile::TempPath {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tree = folder.path().join("tree");
    let dpkg = async |words: &[&std::ffi::OsStr]| ok(tool("dpkg-deb").args(words)).await;
    dpkg(&["--raw-extract".as_ref(), package.as_os_str(), tree.as_os_str()]).await;
    let control = tree.join("DEBIAN/control");
    let fields = std::fs::read_to_string(&control).expect("a control file");
    let fields = fields.lines().map(|line| {
        if line.starts_with("Version: ") { format!("Version: {version}\n") } else { format!("{line}\n") }
    });
    std::fs::write(&control, fields.collect::<String>()).expect("our own folder");
    // A new file, as every build's is another: what is behind an ELF file's end belongs to nobody.
    let program = tree.join("usr/bin/instance-agent");
    let mut bytes = std::fs::read(&program).expect("the program");
    bytes.extend_from_slice(version.as_bytes());
    std::fs::write(&program, bytes).expect("our own folder");
    change(&tree);
    let made = tempfile::Builder::new().prefix("instance-agent_").suffix("_amd64.deb").tempfile();
    let made = made.expect("a temporary file").into_temp_path();
    let quick = ["--root-owner-group".as_ref(), "-Zxz".as_ref(), "-z1".as_ref(), "--build".as_ref()];
    dpkg(&[&quick[..], &[tree.as_os_str(), made.as_os_str()]].concat()).await;
    made
}
