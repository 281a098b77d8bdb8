//! What an instance is told to do at its first boot.

use std::path::{Path, PathBuf};
use std::process::Command;

use bootstrap::local::Cloud;

use super::files::Files;
use crate::text;

/// The name under which the package can be downloaded.
pub const PACKAGE: &str = "instance-agent.deb";

/// The user data that our documentation shows, with a package's address filled in, and what the
/// instance needs to find the local cloud instead of AWS.
pub fn user_data(cloud: &Cloud, files: &Files) -> String {
    let package = package();
    let output = Command::new("sha256sum").arg(&package).output().expect("it starts");
    let sum = text(&output.stdout);
    let sum = sum.split(' ').next().expect("a sum");
    let url = files.put(PACKAGE, std::fs::read(&package).expect("just found"));
    let form = root().join("packaging/cloud-init.yaml");
    let form = std::fs::read_to_string(form).expect("the form");
    assert!(form.contains("@URL@") && form.contains("@SHA256@"), "{form}");
    let form = form.replace("@URL@", &url).replace("@SHA256@", sum);
    let endpoint = cloud.endpoint_url();
    format!(
        "{form}
write_files:
  - path: /etc/systemd/system/instance-agent.service.d/local-cloud.conf
    content: |
      [Service]
      Environment=AWS_ENDPOINT_URL={endpoint}
"
    )
}

/// The package for this machine's kind of processor: in the folder that TESTS_DIST names, else in
/// `dist`, where `make deb` puts it.
pub fn package() -> PathBuf {
    let folder = std::env::var_os("TESTS_DIST").map_or_else(|| root().join("dist"), PathBuf::from);
    let is_package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("instance-agent_") && name.ends_with("_amd64.deb")
    };
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_package).collect();
    assert_eq!(found.len(), 1, "not one package in {}; `make deb` makes it: {found:?}", folder.display());
    found.remove(0)
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
