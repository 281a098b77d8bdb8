//! A fleet as the text of a fleet file, with every default.

use std::fmt::Write as _;

use instance_contract::duration;
use toml::Value;

use super::model::{Fleet, Package, public_address};

#[derive(Default)]
struct FileText(String);

// Writing into a String cannot fail.
impl FileText {
    fn key(&mut self, name: &str, value: impl Into<Value>) {
        _ = writeln!(self.0, "{name} = {}", value.into());
    }

    fn table(&mut self, header: &str) {
        _ = writeln!(self.0, "\n{header}");
    }

    fn comment(&mut self, text: &str) {
        _ = writeln!(self.0, "# {text}");
    }
}

impl Fleet {
    /// A fleet file that describes this fleet, in the order of the documentation. Every key that has a default is there.
    ///
    /// What a file cannot say again is a comment: the query of a package's address, and the key of an apt repository.
    pub(crate) fn to_file(&self) -> String {
        let mut file = FileText::default();
        file.key("name", self.name.as_str());
        if let Some(region) = &self.region {
            file.key("region", region.as_str());
        }
        file.key("image", self.image.as_str());
        file.key("zones", self.zones.clone());
        file.key("port", i64::from(self.port));
        file.key("deregistration-delay", duration::format(self.deregistration_delay));
        if let Some(name) = &self.key_pair {
            file.key("key-pair", name.as_str());
        }
        if let Some(name) = &self.instance_profile {
            file.key("instance-profile", name.as_str());
        }
        file.table("[health-check]");
        file.key("path", self.health_check.path.as_str());
        file.key("interval", duration::format(self.health_check.interval));
        file.key("timeout", duration::format(self.health_check.timeout));
        file.key("healthy", i64::from(self.health_check.healthy));
        file.key("unhealthy", i64::from(self.health_check.unhealthy));
        file.table("[security]");
        file.key("ports", self.security.ports.iter().copied().map(i64::from).collect::<Vec<_>>());
        file.key("allow", self.security.allow.clone());
        file.key("balancer-allow", self.security.balancer_allow.clone());
        if let Some(package) = &self.package {
            file.table("[package]");
            file.package(package);
        }
        if !self.tags.is_empty() {
            file.table("[tags]");
        }
        for (name, value) in &self.tags {
            file.key(&Value::from(name.as_str()).to_string(), value.as_str());
        }
        for group in &self.groups {
            file.table("[[group]]");
            file.key("name", group.name.as_str());
            file.key("type", group.instance_type.as_str());
            file.key("count", i64::from(group.count));
            file.key("weight", i64::from(group.weight));
            file.key("root", group.root.as_str());
            file.key("paths", group.paths);
        }
        file.0
    }
}

impl FileText {
    fn package(&mut self, package: &Package) {
        match package {
            Package::InImage => self.key("in-image", true),
            Package::Deb { file, .. } => {
                let file = file.as_deref().map(|file| file.display().to_string());
                self.key("deb", file.unwrap_or_default());
            }
            Package::Url { url, sha256 } => {
                self.key("url", public_address(url));
                if url.contains('?') {
                    self.comment("the url's query may be a signature and is not shown");
                }
                self.key("sha256", sha256.as_str());
            }
            Package::Apt { line, .. } => {
                self.key("apt", line.as_str());
                self.comment("key: the file's text was read and is a public key");
            }
        }
    }
}
