use std::hint::black_box;

use criterion::{Criterion, Throughput};

#[allow(dead_code, unused_imports, reason = "the agent uses the rest of it")]
#[path = "../../../../agent/server/src/seed/number.rs"]
mod number;
#[allow(dead_code, unused_imports, reason = "the agent uses the rest of it")]
#[path = "../../../../agent/server/src/seed/slot.rs"]
mod slot;

use number::{MAX_DIGITS, Seed};
use slot::Slot;

fn body(digits: usize) -> String {
    format!("{{\"num\": {}}}", "7".repeat(digits))
}

/// From a request's body to a seed.
pub(crate) fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seed parser");
    for digits in [3, MAX_DIGITS] {
        let body = body(digits);
        assert!(Seed::from_json_body(body.as_bytes()).is_ok(), "{digits} digits are a seed");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{digits} digits"), |bencher| {
            bencher.iter(|| Seed::from_json_body(black_box(body.as_bytes())));
        });
    }
    group.finish();
}

/// From a seed to a slot of its file, and back.
pub(crate) fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot codec");
    for digits in [3, MAX_DIGITS] {
        let Ok(seed) = Seed::from_json_body(body(digits).as_bytes()) else {
            panic!("{digits} digits are a seed")
        };
        let slot = Slot { sequence: 7, seed };
        let bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes).as_ref(), Some(&slot), "{digits} digits come back");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("encode {digits} digits"), |bencher| {
            bencher.iter(|| black_box(&slot).encode())
        });
        group.bench_function(format!("decode {digits} digits"), |bencher| {
            bencher.iter(|| Slot::decode(black_box(&bytes)))
        });
    }
    group.finish();
}
