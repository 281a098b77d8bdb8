//! The sweeps, whole. `make test` does a short pass of each, in the modules of their subjects.

use tests::sweep::Extent::Whole;
use tests::sweep::calls::{Accident, sweep};
use tests::sweep::{changes, signals, together};

#[tokio::test]
async fn any_call_may_fail() {
    sweep(Whole, Accident::Fails).await;
}

#[tokio::test]
async fn the_answer_of_any_call_may_be_lost() {
    sweep(Whole, Accident::LosesItsAnswer).await;
}

#[tokio::test]
async fn bootstrap_may_be_killed_at_any_call() {
    sweep(Whole, Accident::IsTheLast).await;
}

#[tokio::test]
async fn a_change_of_type_that_is_killed_is_finished_by_the_next_launch() {
    changes::type_change_is_killed(Whole).await;
}

#[tokio::test]
async fn another_group_and_another_zone_take_over_when_they_are_healthy() {
    changes::group_and_zone_change(Whole).await;
}

#[tokio::test]
async fn an_exchange_that_is_killed_while_it_takes_away_is_finished_by_the_next_launch() {
    changes::taking_away_is_killed(Whole).await;
}

#[tokio::test]
async fn ctrl_c_at_any_moment_leaves_what_launch_finishes_and_destroy_removes() {
    signals::ctrl_c(Whole).await;
}

#[tokio::test]
async fn one_destroy_ends_what_a_launch_makes_after_it_was_looked_for() {
    together::late_calls(Whole).await;
}
