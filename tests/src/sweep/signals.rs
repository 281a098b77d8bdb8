//! A launch is interrupted at one moment after another.

use std::time::Duration;

use rustix::process::Signal;

use super::Extent;
use crate::account::{Options, Small, without_ids};
use crate::eventually;

/// Ctrl-C at any moment of a launch leaves what `launch` finishes and `destroy` removes.
pub async fn ctrl_c(extent: Extent) {
    let place = Small::with(Options::prompt()).await;
    let empty = without_ids(&place.account.snapshot().await);
    let usual = place.usual().await;
    // So that calls are on their way at each moment.
    let distant = Options { latency: Duration::from_millis(50), ..Options::prompt() };
    for after in extent.of([14, 20, 1, 8, 26], 2) {
        place.account.reset(distant.clone()).await;
        let running = place.account.bootstrap(&place.launching()).start();
        let begun = eventually(async || (place.account.calls().len() >= after).then_some(())).await;
        assert!(begun.is_some(), "it never made {after} calls");
        running.signal(Signal::INT);
        let ended = running.end().await;
        assert!(matches!(ended.status, Some(1)), "after {after} calls: {ended:?}");
        // What was on its way came to its end: nothing was asked that has no answer.
        place.account.quiet().await;
        assert!(place.account.calls().iter().all(|call| call.ended.is_some()), "after {after} calls");
        place.account.set(|options| options.latency = Duration::ZERO);
        if after % 4 == 0 {
            place.destroy().await.success();
            place.is(&empty).await;
        } else {
            place.launch().await.success();
            place.is(&usual).await;
        }
    }
}
