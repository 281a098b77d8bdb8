//! What the metadata service and AWS say falsely: a captive portal's page, half an answer, numbers out of range. What
//! is no valid answer is no answer, and takes nothing out of its group.

use std::time::SystemTime;

use local_cloud::{Fault, SpotAction, TargetState};
use tests::{Bed, Machine, PORT, ended};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

const PAGE: &str = "<!DOCTYPE html>\n<html><body>Please sign in</body></html>\n";
const TAGS: &str = "meta-data/tags/instance";

fn said(machine: &Machine, text: &str) -> usize {
    machine.log().matches(text).count()
}

#[tokio::test]
async fn a_page_where_a_spot_notice_belongs_is_no_notice_and_hides_none() {
    let (_bed, machine, _agent) = Bed::healthy().await;
    let path = "meta-data/spot/instance-action";
    machine.instance.answer_metadata(path, Some((200, PAGE)));
    machine.until_logged("instance-action: the answer is not a spot interruption notice").await;
    for answer in ["{\"action\": \"termin", r#"{"action": "none"}"#, r#"{"action": "terminate"}"#, ""] {
        machine.instance.answer_metadata(path, Some((200, answer)));
        // Asked every five seconds; the next look is over once the notice after it has been asked for too.
        let asked = SystemTime::now();
        machine.instance.set_rebalance(Some(asked));
        machine.until_status("the next look", |status| status["rebalance"] != serde_json::Value::Null).await;
        machine.instance.set_rebalance(None);
        machine
            .until_status("the look after it", |status| status["rebalance"] == serde_json::Value::Null)
            .await;
    }
    assert_eq!(machine.status().await.unwrap()["phase"], "serving");
    assert_eq!(said(&machine, "is not a spot interruption notice"), 1, "{}", machine.log());
    machine.instance.answer_metadata(path, None);
    machine.instance.set_spot(Some((SpotAction::Terminate, SystemTime::now())));
    machine.until_phase("drained").await;
}

#[tokio::test]
async fn a_page_where_the_tags_belong_takes_nothing_out_of_its_group() {
    for page in [PAGE, ""] {
        let mut bed = Bed::start().await;
        let (machine, _agent) = bed.boot().await;
        bed.until_target("cluster1", &machine, TargetState::Healthy).await;
        machine.instance.answer_metadata(TAGS, Some((200, page)));
        machine.until_logged("tags/instance: the answer is not a list of tags").await;
        assert!(bed.calls(&machine, "DeregisterTargets").is_empty());
        machine.instance.answer_metadata(TAGS, None);
        machine.until_logged("instance metadata available again after").await;
        assert_eq!(machine.status().await.unwrap()["target_groups"][0]["state"], "healthy");
    }
}

#[tokio::test]
async fn tags_that_vanish_from_the_metadata_alone_have_not_vanished() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.instance.answer_metadata(TAGS, Some((200, "Name")));
    machine.until_logged("no longer lists any tag").await;
    let asked = async || (!bed.calls(&machine, "DescribeTags").is_empty()).then_some(());
    assert!(tests::eventually(asked).await.is_some(), "EC2 is not asked");
    // What EC2 says of the cluster from now on is heard, so its answer has been taken in.
    machine.instance.answer_metadata(TAGS, None);
    machine.instance.set_tag(instance_contract::tags::CLUSTER, "other");
    machine.until_status("the new tag", |status| status["cluster"] == "other").await;
    assert!(bed.calls(&machine, "DeregisterTargets").is_empty());
}

#[tokio::test]
async fn tags_that_ec2_does_not_know_either_have_vanished() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.instance.remove_tag(instance_contract::tags::CLUSTER);
    machine.instance.remove_tag(instance_contract::tags::TARGET_GROUP);
    // Else the list would be empty, which is no list.
    machine.instance.set_tag("Name", "left alone");
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
}

#[tokio::test]
async fn half_an_answer_about_its_group_or_health_is_no_answer() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("DescribeTargetGroups", Some(Fault::BreakOff));
    let (machine, mut agent) = bed.boot().await;
    machine.until_logged(": the answer is incomplete;").await;
    bed.cloud.set_fault("DescribeTargetGroups", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_fault("DescribeTargetHealth", Some(Fault::BreakOff));
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.cloud.health_of("cluster1", machine.instance.id(), PORT).state, TargetState::Draining);
}

#[tokio::test]
async fn half_an_answer_about_its_tags_does_not_leave_it_without() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("DescribeTags", Some(Fault::BreakOff));
    let mut spec = bed.spec();
    spec.publishes_tags = false;
    let machine = bed.machine(spec).await;
    let _agent = machine.start();
    machine.until_logged(": the answer is incomplete").await;
    bed.cloud.set_fault("DescribeTags", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn a_session_token_that_lives_past_the_end_of_time_stops_nothing() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.tell_token_ttl(u64::MAX);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(said(&machine, "panicked"), 0, "{}", machine.log());
}

#[tokio::test]
async fn a_blank_region_in_the_environment_is_none() {
    let mut bed = Bed::start().await;
    for (name, value) in [("AWS_REGION", ""), ("AWS_DEFAULT_REGION", " ")] {
        let mut machine = bed.machine(bed.spec()).await;
        machine.command.environment.push((name.to_owned(), value.to_owned()));
        let _agent = machine.start();
        bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    }
}

#[tokio::test]
async fn an_access_key_with_a_carriage_return_is_said_once_in_words() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    for (name, value) in [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE\r"), ("AWS_SECRET_ACCESS_KEY", "secret")] {
        machine.command.environment.push((name.to_owned(), value.to_owned()));
    }
    let _agent = machine.start();
    machine.until_logged("the access key id has an invalid character at position 12").await;
    for absent in ["panicked", "AKIDEXAMPLE", "\r"] {
        assert_eq!(said(&machine, absent), 0, "{absent:?}: {}", machine.log());
    }
}

#[tokio::test]
async fn aws_is_called_through_the_proxy_that_the_environment_names_and_metadata_are_not() {
    let mut bed = Bed::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = bed.cloud.endpoint();
    // Requests come in the form for proxies, which every HTTP server has to take.
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(endpoint).await.unwrap();
                _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    // A name that only the proxy knows.
    let set = |machine: &mut Machine, name: &str, value: &str| {
        machine.command.environment.push((name.to_owned(), value.to_owned()));
    };
    let endpoint = "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2";
    let mut machine = bed.machine(bed.spec()).await;
    set(&mut machine, endpoint, "http://aws.invalid");
    set(&mut machine, "HTTP_PROXY", &proxy);
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;

    let mut excepted = bed.machine(bed.spec()).await;
    set(&mut excepted, endpoint, "http://aws.invalid");
    set(&mut excepted, "HTTP_PROXY", &proxy);
    set(&mut excepted, "NO_PROXY", "aws.invalid");
    let _agent = excepted.start();
    excepted.until_logged("or name a proxy in HTTPS_PROXY").await;
}
