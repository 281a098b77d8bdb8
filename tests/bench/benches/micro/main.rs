//! The agent's pure parts, measured one by one: the seed's parser, the slot's codec, the router.
//!
//! They are private to the agent. This program includes their files, so the agent exports nothing for it.

use criterion::Criterion;

#[allow(dead_code, unreachable_pub, reason = "the agent uses the rest of it")]
#[path = "../../../../agent/server/src/answers.rs"]
mod answers;
mod router;
mod seed;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    seed::parser(&mut criterion);
    seed::codec(&mut criterion);
    router::router(&mut criterion);
    criterion.final_summary();
}
