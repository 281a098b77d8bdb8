//! The network of a region: a bridge that the machines' cables end at, with the account's API, the
//! metadata service and the balancers on this side of it. Nothing leads out.

use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;

use rustix::thread::UnshareFlags;
use tempfile::NamedTempFile;

use crate::netns;

use super::{INSIDE, METADATA};

const BRIDGE: &str = "br0";

/// The names that the region's balancers have: `/etc/hosts`, as everyone in the region sees it.
pub(super) struct Hosts {
    file: NamedTempFile,
    content: String,
}

impl Hosts {
    /// Makes these the only names there are.
    pub(super) fn set<'a>(&mut self, names: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) {
        let mut content = "127.0.0.1 localhost\n".to_owned();
        for (name, address) in names {
            content.push_str(&format!("{address} {name}\n"));
        }
        if content == self.content {
            return;
        }
        // The same file: it is the one that is mounted. At no time does it lack a name that stays.
        let file = self.file.as_file();
        file.write_all_at(content.as_bytes(), 0).expect("room for it");
        file.set_len(content.len() as u64).expect("our own file");
        self.content = content;
    }
}

/// Moves this thread into a network and a mount namespace of its own, and what it starts from now on
/// with it. They are gone with the last process in them.
pub(super) async fn enter() -> Hosts {
    netns::enter().await;
    netns::unshare(UnshareFlags::NEWNS);
    netns::run("mount", "--make-rprivate /").await;
    let file = NamedTempFile::new().expect("a temporary file");
    let mut hosts = Hosts { file, content: String::new() };
    hosts.set([]);
    let path = hosts.file.path().to_str().expect("a plain path").to_owned();
    netns::run("mount", &format!("--bind {path} /etc/hosts")).await;
    netns::ip(&format!("link add {BRIDGE} type bridge forward_delay 0")).await;
    netns::ip(&format!("address add {INSIDE}/16 dev {BRIDGE}")).await;
    netns::ip(&format!("address add {METADATA}/32 dev {BRIDGE}")).await;
    netns::ip(&format!("link set {BRIDGE} up")).await;
    hosts
}

/// An address on this side that everyone in the region reaches.
pub(super) async fn add_address(address: Ipv4Addr) {
    netns::ip(&format!("address add {address}/32 dev lo")).await;
}

/// Takes it away again.
pub(super) async fn remove_address(address: Ipv4Addr) {
    netns::ip(&format!("address del {address}/32 dev lo")).await;
}

/// Plugs a machine's cable into the bridge, and sends there what is meant for its public address.
pub(super) async fn attach(cable: &str, private: Ipv4Addr, public: Option<Ipv4Addr>) {
    netns::ip(&format!("link set {cable} master {BRIDGE} up")).await;
    // moto gives an instance without a subnet an address of no subnet.
    netns::ip(&format!("route replace {private}/32 dev {BRIDGE}")).await;
    if let Some(public) = public {
        netns::ip(&format!("route replace {public}/32 via {private}")).await;
    }
}
