//! The network of a region: a bridge that the machines' cables end at, with the account's API, the
//! metadata service and the balancers on this side of it. Nothing leads out.

use std::io::Write;
use std::net::Ipv4Addr;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::NamedTempFile;

use crate::netns;
use crate::solo::tool;
use crate::text;

use super::{INSIDE, METADATA};

const BRIDGE: &str = "br0";

/// The names that the region's balancers have: `/etc/hosts`, as everyone in the region sees it.
pub(super) struct Hosts(NamedTempFile);

impl Hosts {
    /// Makes these the only names there are.
    pub(super) fn set<'a>(&mut self, names: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) {
        let mut content = "127.0.0.1 localhost\n".to_owned();
        for (name, address) in names {
            content.push_str(&format!("{address} {name}\n"));
        }
        // The same file: it is the one that is mounted.
        let file = self.0.as_file_mut();
        file.set_len(0).expect("our own file");
        std::io::Seek::rewind(file).expect("our own file");
        file.write_all(content.as_bytes()).expect("room for it");
    }
}

/// Moves this thread into a network and a mount namespace of its own, and what it starts from now on
/// with it. They are gone with the last process in them.
pub(super) async fn enter() -> Hosts {
    netns::enter().await;
    unshare_mounts();
    run("mount", "--make-rprivate /").await;
    let mut hosts = Hosts(NamedTempFile::new().expect("a temporary file"));
    hosts.set([]);
    let path = hosts.0.path().to_str().expect("a plain path").to_owned();
    run("mount", &format!("--bind {path} /etc/hosts")).await;
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
    if let Some(public) = public {
        netns::ip(&format!("route replace {public}/32 via {private}")).await;
    }
}

async fn run(program: &str, arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let output = tool(program, &words).await;
    assert!(output.status.success(), "{program} {arguments}: {}", text(&output.stderr));
}

#[expect(
    unsafe_code,
    reason = "Some flags take a thread's file descriptors or memory from under it. This one only \
              chooses which file a path means from now on."
)]
fn unshare_mounts() {
    // SAFETY: no descriptor and no memory changes hands, see above.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may");
}
