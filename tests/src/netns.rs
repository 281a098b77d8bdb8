//! A network of the test's own, closed off from every other.

use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::solo::tool;
use crate::text;

/// Moves this thread into a new network namespace that has nothing but loopback, and what it starts
/// from now on with it. Nothing can leave it, and every address and port in it is free. It has no
/// name: it is gone with the last process in it. Needs root.
pub async fn enter() {
    // Other threads stay outside: a socket that one of them made would be in the wrong network.
    assert_eq!(Handle::current().runtime_flavor(), RuntimeFlavor::CurrentThread);
    unshare(UnshareFlags::NEWNET);
    ip("link set lo up").await;
}

/// Runs `ip` in this thread's network.
pub async fn ip(arguments: &str) {
    run("ip", arguments).await;
}

/// Runs a program that has to succeed in this thread's network.
pub async fn run(program: &str, arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let output = tool(program, &words).await;
    assert!(output.status.success(), "{program} {arguments}: {}", text(&output.stderr));
}

#[expect(
    unsafe_code,
    reason = "Some flags take a thread's file descriptors or memory from under it. The network's only chooses where \
              sockets are that are made later, the mounts' which file a path means from then on."
)]
pub(crate) fn unshare(flags: UnshareFlags) {
    assert!(UnshareFlags::NEWNET.union(UnshareFlags::NEWNS).contains(flags));
    // SAFETY: no descriptor and no memory changes hands, see above.
    unsafe { unshare_unsafe(flags) }.expect("root may");
}
