//! Root file systems and packages: what a booted Debian is made of.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A script of `tests/bin`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bin").join(name)
}

/// The folder of a root file system, made if it is missing. Nobody may write into it.
pub async fn root(name: &str) -> PathBuf {
    let output = Command::new(script("debian-root")).args(["--make", name]).output().await;
    let output = output.expect("bash is there");
    assert!(output.status.success(), "{}", crate::text(&output.stderr));
    crate::text(&output.stdout).trim().into()
}

/// The folder of our packages, as `make deb` fills it.
fn dist() -> PathBuf {
    std::env::var_os("TESTS_DIST")
        .expect("TESTS_DIST names the folder of the packages; run `make test`")
        .into()
}

/// Our package of this name for this machine, as built from this tree.
pub fn package(name: &str) -> PathBuf {
    let found = std::fs::read_dir(dist()).expect("the folder of the packages");
    let is_wanted = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&format!("{name}_")) && file.ends_with("_amd64.deb")
    };
    let mut found: Vec<PathBuf> =
        found.map(|entry| entry.expect("an entry").path()).filter(is_wanted).collect();
    assert_eq!(found.len(), 1, "one package {name} in {}: {found:?}", dist().display());
    found.remove(0)
}
