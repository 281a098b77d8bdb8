//! What the virtual machine is told to do at its first boot.

use local_cloud::LocalCloud;

use crate::debian::package;
use crate::files::Files;
use crate::first_boot::from_address;

/// The name under which the package can be downloaded.
pub const PACKAGE: &str = "instance-agent.deb";

/// The user data that `bootstrap launch` gives an instance, and what the instance needs to find the
/// local cloud instead of AWS.
pub fn user_data(cloud: &LocalCloud, files: &Files) -> String {
    let package = package("instance-agent");
    let url = files.put(PACKAGE, std::fs::read(&package).expect("it is there"));
    let endpoint = cloud.endpoint_url();
    format!(
        "{}
write_files:
  - path: /etc/systemd/system/instance-agent.service.d/local-cloud.conf
    content: |
      [Service]
      Environment=AWS_ENDPOINT_URL={endpoint}
",
        from_address(&url, &package)
    )
}
