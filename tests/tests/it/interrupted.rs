//! An accident at each call of a launch of the smallest fleet.

use tests::sweep::Extent;
use tests::sweep::calls::{Accident, sweep};

#[tokio::test]
async fn any_call_may_fail() {
    sweep(Extent::Short, Accident::Fails).await;
}

#[tokio::test]
async fn the_answer_of_any_call_may_be_lost() {
    sweep(Extent::Short, Accident::LosesItsAnswer).await;
}

#[tokio::test]
async fn bootstrap_may_be_killed_at_any_call() {
    sweep(Extent::Short, Accident::IsTheLast).await;
}
