//! The whole story, with the nine machines of the fleet `clusters`.

use tests::solo::is_root_or_skip;
use tests::story::{Day, USUAL, WHY, flask, live};

#[tokio::test]
async fn nine_machines_live_through_a_day() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut day = Day::begin(12, None, "clusters", &[("cluster1", 5), ("cluster2", 4)], USUAL).await;
    live(&mut day).await;
    flask::beside(&mut day).await;
    day.seed_fleet_comes_and_goes().await;
    day.ends().await;
}
