//! A signed apt repository of our own, as `packaging/make-apt-repository` makes it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::package::{ok, tool};

const KEY: &str = "releases@instance-agent.invalid";

/// A key without a passphrase, in a folder of its own. gpg's agent ends with the folder.
pub async fn make_key(folder: &Path) {
    fs::create_dir(folder).expect("a new folder");
    ok(tool("chmod").arg("700").arg(folder)).await;
    let mut gpg = tool("gpg");
    gpg.args([
        "--batch",
        "--quiet",
        "--passphrase",
        "",
        "--quick-generate-key",
        KEY,
        "ed25519",
        "sign",
        "never",
    ]);
    ok(gpg.env("GNUPGHOME", folder).stdin(Stdio::null())).await;
}

/// What makes the repository in `site`, or adds to it, signed with the key in `keys`.
pub fn publish(keys: &Path, site: &Path, packages: &[&Path]) -> Command {
    let mut publish = tool("packaging/make-apt-repository");
    publish.args(["--key", KEY, "--out"]).arg(site).args(packages).env("GNUPGHOME", keys);
    publish
}
