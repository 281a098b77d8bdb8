//! The local balancer: where requests go, and what clients get when targets misbehave.

use std::net::Ipv4Addr;
use std::time::Duration;

use local_cloud::{BalancerHandle, BalancerSpec, Forward, LocalCloud, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::*;

/// A cloud with one healthy target in its group.
async fn one_target(behaviour: Behaviour) -> (LocalCloud, String, BalancerHandle, Target) {
    let (cloud, arn, balancer) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let target = Target::start(behaviour).await;
    caller.register_healthy(&cloud, &arn, instance.id(), target.address.port()).await;
    (cloud, arn, balancer, target)
}

#[tokio::test]
async fn paths_and_weights_lead_to_the_groups() {
    let cloud = LocalCloud::start(options()).await.unwrap();
    let mut arns = Vec::new();
    let mut targets = Vec::new();
    let mut rules = Vec::new();
    for (name, count, priority) in [("cluster1", 5, 1), ("cluster2", 4, 2)] {
        let arn = cloud.create_target_group(group(name));
        rules.push(Rule {
            priority,
            paths: vec![format!("/{name}"), format!("/{name}/*")],
            forward: Forward::to(&arn),
        });
        for _ in 0..count {
            targets.push((arn.clone(), Target::start(Behaviour::Answer(name)).await));
        }
        arns.push(arn);
    }
    let default = Forward::weighted(arns.iter().map(|arn| (arn.clone(), 1)));
    let spec = BalancerSpec { rules, ..BalancerSpec::new("b", default) };
    let balancer = cloud.create_balancer(spec).await.unwrap();
    for (arn, target) in &targets {
        let instance = instance(&cloud).await;
        let caller = Caller::instance(&cloud, &instance).await;
        caller.register_healthy(&cloud, arn, instance.id(), target.address.port()).await;
    }

    let client = reqwest::Client::new();
    let url = balancer.url();
    for _ in 0..900 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }
    let counts: Vec<usize> = targets.iter().map(|(_, target)| target.requests().len()).collect();
    assert_eq!(counts[..5], [90; 5]);
    assert_eq!(counts[5..].iter().sum::<usize>(), 450);
    assert!(counts[5..].iter().all(|count| (112..=113).contains(count)), "{counts:?}");
    for path in ["/cluster1", "/cluster1/", "/cluster1/x?y=z", "/cluster1?q"] {
        assert_eq!(get(&format!("{url}{path}")).await, (200, "cluster1".to_owned()), "{path}");
    }
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(get(&format!("{url}/cluster1x")).await.1);
    }
    others.sort();
    assert_eq!(others, ["cluster1", "cluster2"], "no rule matches: the default takes turns");
    assert_eq!((balancer.requests(), balancer.errors()), (906, 0));
}

#[tokio::test]
async fn targets_see_who_asked_and_no_hop_by_hop_headers() {
    let (_cloud, _, balancer, target) = one_target(Behaviour::Answer("hello")).await;
    let response = reqwest::Client::new()
        .get(format!("{}/path?query=1", balancer.url()))
        .header("host", "fleet.example")
        .header("x-forwarded-for", "10.1.2.3")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .send()
        .await
        .unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    let head = target.requests().pop().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /path?query=1 http/1.1\r\n"), "{head}");
    let port = balancer.address().port();
    for line in [
        "host: fleet.example",
        "x-forwarded-for: 10.1.2.3, 127.0.0.1",
        "x-forwarded-proto: http",
        &format!("x-forwarded-port: {port}"),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} not in {head}");
    }
    for name in ["x-private", "\r\nte:", "\r\nconnection:"] {
        assert!(!head.contains(name), "{name} in {head}");
    }
}

#[tokio::test]
async fn bodies_pass_and_connections_are_kept() {
    let (_cloud, _, balancer, target) = one_target(Behaviour::Echo).await;
    let client = reqwest::Client::new();
    let body = "7".repeat(300_000);
    for _ in 0..5 {
        let response = client.post(balancer.url()).body(body.clone()).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), body);
    }
    let probes = target.heads.lock().unwrap().len() - 5;
    let connections = *target.connections.lock().unwrap();
    assert!(connections < probes + 5, "{connections} connections, {probes} of them probes");
}

#[tokio::test]
async fn an_idle_connection_that_the_target_closed_is_not_used() {
    let (_cloud, _, balancer, target) = one_target(Behaviour::Answer("x")).await;
    assert_eq!(get(&balancer.url()).await.0, 200);
    // Answered, then closed without a word: the next request must come on a new connection.
    target.set(Behaviour::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    for _ in 0..20 {
        assert_eq!(get(&balancer.url()).await, (200, "ok".to_owned()));
    }
    assert_eq!(balancer.errors(), 0);
}

#[tokio::test]
async fn where_no_target_answers_the_balancer_does_with_502_503_or_504() {
    let (cloud, arn, balancer) = cloud().await;
    assert_eq!(get(&balancer.url()).await.0, 503, "no targets");
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let target = Target::start(Behaviour::Reset).await;
    caller.register_healthy(&cloud, &arn, instance.id(), target.address.port()).await;
    assert_eq!(get(&balancer.url()).await.0, 502, "reset");
    target.set(Behaviour::Raw("garbage\r\n\r\n"));
    assert_eq!(get(&balancer.url()).await.0, 502, "malformed");
    target.set(Behaviour::Raw(""));
    assert_eq!(get(&balancer.url()).await.0, 502, "closed before a byte");
    // A kept connection that dies with the request on it: 502, not a second try elsewhere.
    target.set(Behaviour::Answer("x"));
    assert_eq!(get(&balancer.url()).await.0, 200);
    target.set(Behaviour::Reset);
    let before = target.requests().len();
    assert_eq!(get(&balancer.url()).await.0, 502);
    assert_eq!(target.requests().len(), before + 1, "sent once");
    assert_eq!(balancer.errors(), 5);

    let spec = BalancerSpec {
        idle_timeout: Duration::from_millis(100),
        ..BalancerSpec::new("hasty", Forward::to(&arn))
    };
    let hasty = cloud.create_balancer(spec).await.unwrap();
    target.set(Behaviour::Silence);
    assert_eq!(get(&hasty.url()).await.0, 504);
}

#[tokio::test]
async fn a_target_that_refuses_is_a_502_and_one_that_does_not_accept_in_time_a_504() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let spec = BalancerSpec {
        connect_timeout: Duration::from_millis(100),
        ..BalancerSpec::new("hasty", Forward::to(&arn))
    };
    let hasty = cloud.create_balancer(spec).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    caller.register(&arn, instance.id(), address.port()).await;
    assert_eq!(get(&hasty.url()).await.0, 502, "nobody listens");
    let _full = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address));
    while let Ok(stream) = connect().await {
        waiting.push(stream.unwrap());
    }
    assert_eq!(get(&hasty.url()).await.0, 504, "the queue of the listener is full");
}

#[tokio::test]
async fn without_a_healthy_target_the_group_fails_open() {
    let (cloud, arn, balancer, target) = one_target(Behaviour::Answer("open")).await;
    *target.probe.lock().unwrap() = 500;
    let unhealthy = |cloud: &LocalCloud| cloud.target_health(&arn)[0].health.reason.is_some();
    assert!(cloud.wait_until(LIMIT, unhealthy).await);
    assert_eq!(get(&balancer.url()).await, (200, "open".to_owned()));
}

#[tokio::test]
async fn a_draining_target_hears_late_requests_and_then_none() {
    let (cloud, arn, balancer, target) = one_target(Behaviour::Answer("late")).await;
    let id = cloud.target_health(&arn)[0].id.clone();
    assert!(cloud.deregister(&arn, &id, target.address.port()));
    assert_eq!(get(&balancer.url()).await.0, 200, "the balancer has not heard of it yet");
    jump(Duration::from_secs(2)).await;
    assert_eq!(get(&balancer.url()).await.0, 503, "draining only");
}

#[tokio::test]
async fn a_dropped_cloud_closes_its_connections_and_listeners() {
    let (cloud, arn, balancer) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    caller.register(&arn, instance.id(), listener.local_addr().unwrap().port()).await;
    let mut client = TcpStream::connect(balancer.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: fleet.example\r\n\r\n").await.unwrap();
    let mut target = loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        if !String::from_utf8_lossy(&head[..read]).contains("ELB-HealthChecker") {
            break stream;
        }
    };
    let endpoint = cloud.endpoint();
    drop(cloud);
    let closed = async {
        for stream in [&mut target, &mut client] {
            assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "it was answered");
        }
        for address in [endpoint, balancer.address()] {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}
