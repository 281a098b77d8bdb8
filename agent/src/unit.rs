//! The systemd unit that started this process, and whether it has changed since.
//!
//! A reload keeps the process, so a changed unit (of a new release, or a drop-in) takes effect only at the
//! next restart. `status` therefore shows such a change.

use std::fs;
use std::path::Path;

/// The folders with systemd's unit files, strongest first.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

#[derive(Clone, Debug)]
pub(crate) struct Unit {
    name: Option<String>,
    at_start: Option<u32>,
}

impl Unit {
    /// Finds the unit that started this process. `at_start` is the fingerprint from before a reload.
    pub(crate) fn of_this_process(at_start: Option<u32>) -> Self {
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = service_name(&cgroup).map(str::to_owned);
        let at_start =
            at_start.or_else(|| name.as_deref().and_then(|name| fingerprint(Path::new("/"), name)));
        Self { name, at_start }
    }

    /// The fingerprint of its files when the process started.
    pub(crate) fn at_start(&self) -> Option<u32> {
        self.at_start
    }

    /// What to do, if its files have changed.
    pub(crate) fn restart_needed(&self) -> Option<String> {
        let name = self.name.as_deref()?;
        let changed = fingerprint(Path::new("/"), name)? != self.at_start?;
        changed.then(|| format!("needed: {name} has changed; `systemctl restart {name}` applies it"))
    }
}

/// The service in a `/proc/PID/cgroup`, whose last folder is the unit's name.
fn service_name(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.rsplit('/').next().filter(|name| name.ends_with(".service")))
}

/// A checksum of the unit's files and their names below `root`; `None` if there are none.
fn fingerprint(root: &Path, name: &str) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut found = false;
    let mut add = |path: &Path| {
        if let Ok(text) = fs::read(path) {
            found = true;
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&text);
        }
    };
    for folder in FOLDERS {
        let folder = root.join(folder.trim_start_matches('/'));
        add(&folder.join(name));
        let mut drop_ins: Vec<_> = fs::read_dir(folder.join(format!("{name}.d")))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        drop_ins.sort();
        drop_ins.iter().for_each(|path| add(path));
    }
    found.then(|| hasher.finalize())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_unit_is_named_by_the_control_group_of_either_version() {
        assert_eq!(service_name("0::/system.slice/instance-agent.service\n"), Some("instance-agent.service"));
        assert_eq!(
            service_name("3:cpu:/\n1:name=systemd:/system.slice/instance-agent.service\n0::/\n"),
            Some("instance-agent.service")
        );
        assert_eq!(service_name("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(service_name(""), None);
    }

    #[test]
    fn a_change_of_the_unit_or_of_a_drop_in_is_noticed_and_a_new_copy_is_not() {
        let root = tempfile::tempdir().unwrap();
        let shipped = root.path().join("usr/lib/systemd/system");
        let drop_ins = root.path().join("etc/systemd/system/a.service.d");
        fs::create_dir_all(&shipped).unwrap();
        assert_eq!(fingerprint(root.path(), "a.service"), None);
        fs::write(shipped.join("a.service"), "[Service]\n").unwrap();
        let first = fingerprint(root.path(), "a.service");
        fs::write(shipped.join("a.service.new"), "[Service]\n").unwrap();
        fs::rename(shipped.join("a.service.new"), shipped.join("a.service")).unwrap();
        assert_eq!(fingerprint(root.path(), "a.service"), first);
        fs::create_dir_all(&drop_ins).unwrap();
        fs::write(drop_ins.join("note.txt"), "no drop-in").unwrap();
        assert_eq!(fingerprint(root.path(), "a.service"), first);
        fs::write(drop_ins.join("memory.conf"), "[Service]\nMemoryMax=1G\n").unwrap();
        let second = fingerprint(root.path(), "a.service");
        assert_ne!(second, first);
        fs::write(shipped.join("a.service"), "[Service]\nRestartSec=2\n").unwrap();
        assert_ne!(fingerprint(root.path(), "a.service"), second);
    }
}
