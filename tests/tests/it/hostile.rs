//! What hostile clients may cost: others go on being served, within bounds that do not depend on how many they are.

use tests::eventually;
use tests::solo::Solo;
use tests::wire::reads_nothing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// As many as are served at a time that read nothing; see `server/blocked.rs`.
const MAX_BLOCKED: u64 = 128;

#[tokio::test]
async fn clients_that_read_no_answers_are_dropped_past_a_number_of_them_and_others_are_served() {
    let solo = Solo::new();
    let agent = solo.start().await;
    let seed = "7".repeat(4300);
    let mut wire = solo.connect().await;
    wire.post(&seed).await.unwrap().is(200, &seed);
    let before = resident(agent.pid());
    let mut silent = Vec::new();
    for _ in 0..MAX_BLOCKED + 100 {
        silent.push(reads_nothing(solo.listen, 100).await);
        // As the balancer's probe does, and on a connection that was there before.
        if silent.len() % 50 == 0 {
            solo.connect().await.get("/health").await.unwrap().is(200, "Healthy!");
            wire.get("/seed").await.unwrap().is(200, &seed);
        }
    }
    let dropped = async || (solo.status().await?["traffic"]["unread_dropped"].as_u64()? >= 100).then_some(());
    assert!(eventually(dropped).await.is_some(), "{:?}\n{}", solo.status().await, solo.log());
    let status = solo.status().await.unwrap();
    assert!(status["traffic"]["connections"].as_u64().unwrap() <= MAX_BLOCKED + 2, "{status}");
    solo.until_logged("dropping connections: their clients send requests and read no answers").await;
    let more = resident(agent.pid()).saturating_sub(before);
    assert!(more < MAX_BLOCKED * 128 * 1024, "{more} bytes more");
    // One that does read loses nothing, however much it asks for at once.
    let mut reader = solo.connect().await;
    reader.send(&"GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200)).await.unwrap();
    for _ in 0..200 {
        reader.answer().await.unwrap().is(200, &seed);
    }
}

/// Over a reload what is still to be written to a client travels along: it must not leave the bound with that.
#[tokio::test]
async fn six_reloads_while_clients_read_nothing_keep_no_more_of_them_than_one_does() {
    // No connection may end for another reason.
    let solo = Solo::new().with(&["--write-timeout", "1h"]);
    let agent = solo.start().await;
    let seed = "7".repeat(4300);
    let mut wire = solo.connect().await;
    wire.post(&seed).await.unwrap().is(200, &seed);
    let before = resident(agent.pid());
    // This one reads late, but it does.
    let mut reader = solo.connect().await;
    reader.send(&"GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200)).await.unwrap();
    let mut silent = Vec::new();
    for round in 0..6 {
        for _ in 0..100 {
            silent.push(reads_nothing(solo.listen, 100).await);
        }
        let output = solo.command(&[], &["reload"]).await;
        assert!(output.status.success(), "{output:?}\n{}", solo.log());
        solo.connect().await.get("/health").await.unwrap().is(200, "Healthy!");
        wire.get("/seed").await.unwrap().is(200, &seed);
        for _ in 0..if round == 0 { 200 } else { 0 } {
            reader.answer().await.unwrap().is(200, &seed);
        }
    }
    let past_the_bound = silent.len() as u64 - MAX_BLOCKED;
    let dropped = async || {
        (solo.status().await?["traffic"]["unread_dropped"].as_u64()? >= past_the_bound).then_some(())
    };
    assert!(eventually(dropped).await.is_some(), "{:?}\n{}", solo.status().await, solo.log());
    let status = solo.status().await.unwrap();
    assert!(status["traffic"]["connections"].as_u64().unwrap() <= MAX_BLOCKED + 2, "{status}");
    let more = resident(agent.pid()).saturating_sub(before);
    assert!(more < MAX_BLOCKED * 512 * 1024, "{more} bytes more");
    // The longest of all was the one that reads: it has its answers, and is not counted any more.
    reader.get("/seed").await.unwrap().is(200, &seed);
}

/// A closed socket keeps what the kernel has not sent: it must not be in no bound for that.
#[tokio::test]
async fn connections_that_are_to_close_count_until_their_answers_are_sent() {
    const CLIENTS: u64 = MAX_BLOCKED + 150;
    let solo = Solo::new().with(&["--write-timeout", "1h"]);
    let _agent = solo.start().await;
    let seed = "7".repeat(4300);
    solo.post(&seed).await.is(200, &seed);
    let last = "GET /seed HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let asks = format!("{}{last}", "GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    let client = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(solo.listen).await.unwrap();
        stream.write_all(asks.as_bytes()).await.unwrap();
        stream
    };
    let dropped = async |count: u64| {
        let dropped = async || {
            let status = solo.status().await?;
            (status["traffic"]["unread_dropped"].as_u64()? >= count).then_some(status)
        };
        match eventually(dropped).await {
            Some(status) => status,
            None => panic!("{:?}\n{}", solo.status().await, solo.log()),
        }
    };
    let mut silent = Vec::new();
    for _ in 1..CLIENTS {
        silent.push(client().await);
    }
    // The last one comes when the others are counted: of those noticed at once any may be the first.
    dropped(CLIENTS - 1 - MAX_BLOCKED).await;
    silent.push(client().await);
    let status = dropped(CLIENTS - MAX_BLOCKED).await;
    assert!(status["traffic"]["connections"].as_u64().unwrap() <= MAX_BLOCKED + 1, "{status}");
    // The last to come is among those that are kept. Once it reads, it has every answer, and its connection ends.
    let mut last = Vec::new();
    silent.pop().unwrap().read_to_end(&mut last).await.unwrap();
    let last = String::from_utf8(last).unwrap();
    assert_eq!(last.matches(&seed).count(), 3, "{} bytes", last.len());
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
