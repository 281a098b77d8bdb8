//! What an instance is told to do at its first boot.

use std::path::Path;
use std::process::Command;

use bootstrap::local::Cloud;

use super::files::Files;
use crate::debian::package;
use crate::text;

/// The name under which the package can be downloaded.
pub const PACKAGE: &str = "instance-agent.deb";

/// The user data that our documentation shows, with a package's address filled in, and what the
/// instance needs to find the local cloud instead of AWS.
pub fn user_data(cloud: &Cloud, files: &Files) -> String {
    let package = package("instance-agent");
    let output = Command::new("sha256sum").arg(&package).output().expect("it starts");
    let sum = text(&output.stdout);
    let sum = sum.split(' ').next().expect("a sum");
    let url = files.put(PACKAGE, std::fs::read(&package).expect("just found"));
    let form = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/cloud-init.yaml");
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
