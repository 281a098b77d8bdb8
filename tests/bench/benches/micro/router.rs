use std::hint::black_box;

use criterion::Criterion;
use hyper::{Method, Uri};

#[allow(dead_code, unused_imports, reason = "the agent uses the rest of it")]
#[path = "../../../../agent/server/src/server/routes.rs"]
mod routes;

use routes::{Clusters, route};

/// From method and path to an action.
pub(crate) fn router(criterion: &mut Criterion) {
    let Ok(own) = "cluster1".parse() else { panic!("a cluster's name") };
    let own = Clusters::Own(own);
    let mut group = criterion.benchmark_group("router");
    for (path, found) in [
        ("/", true),
        ("/health", true),
        ("/cluster1", true),
        ("/cluster1/a/b/c", true),
        ("/%63luster1", true),
        ("/cluster2", false),
    ] {
        let target = Uri::from_static(path);
        assert_eq!(route(&Method::GET, &target, &own).is_ok(), found, "{path}");
        group.bench_function(path, |bencher| {
            bencher.iter(|| route(black_box(&Method::GET), black_box(&target), black_box(&own)));
        });
    }
    group.finish();
}
