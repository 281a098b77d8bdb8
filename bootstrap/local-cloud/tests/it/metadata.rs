//! The metadata service, with raw requests.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use local_cloud::{InstanceSpec, Outage, SpotAction};

use crate::support::{self, *};

#[tokio::test]
async fn metadata_insists_on_a_session_token() {
    let (cloud, ..) = cloud().await;
    let instance = instance(&cloud).await;
    let client = reqwest::Client::new();
    let put = |headers: &[(&'static str, &'static str)]| {
        let url = format!("{}/latest/api/token", instance.imds_url());
        let request = headers.iter().fold(client.put(url), |r, (k, v)| r.header(*k, *v));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    assert_eq!(put(&[]).await, 400);
    for wrong in ["0", "21601", "x", ""] {
        assert_eq!(put(&[(TTL, wrong)]).await, 400, "{wrong:?}");
    }
    assert_eq!(put(&[(TTL, "60"), ("x-forwarded-for", "10.0.0.1")]).await, 403);
    assert_eq!(put(&[(TTL, "21600")]).await, 200);

    let (status, _) = get(&format!("{}/latest/meta-data/instance-id", instance.imds_url())).await;
    assert_eq!(status, 401, "version 1");
    let id = "meta-data/instance-id";
    assert_eq!(metadata(&instance, id, "wrong").await.0, 401);
    let token = token(&instance, "2").await;
    assert_eq!(metadata(&instance, id, &token).await, (200, instance.id().to_owned()));
    let other = support::instance(&cloud).await;
    assert_eq!(metadata(&other, id, &token).await.0, 401, "another instance's token");
    jump(Duration::from_secs(2)).await;
    assert_eq!(metadata(&instance, id, &token).await.0, 401, "expired");

    let earlier = support::token(&instance, "60").await;
    let others = support::token(&other, "60").await;
    instance.forget_session_tokens();
    assert_eq!(metadata(&instance, id, &earlier).await.0, 401, "forgotten");
    let later = support::token(&instance, "60").await;
    assert_eq!(metadata(&instance, id, &later).await.0, 200);
    assert_eq!(metadata(&other, id, &others).await.0, 200, "another instance's are its own");
}

/// As cloud-init does: every folder is listed, every entry asked for. It tries an entry that is listed
/// and then answers 404 for five minutes.
#[tokio::test]
async fn metadata_answers_whatever_it_lists_under_each_version() {
    let (cloud, ..) = cloud().await;
    let spec = InstanceSpec {
        user_data: Some("#!/bin/sh\n".to_owned()),
        public_key: Some("ssh-ed25519 AAAA".to_owned()),
        ..InstanceSpec::new(Ipv4Addr::LOCALHOST).tag("instance-agent:cluster", "cluster1")
    };
    let instance = cloud.run_instance(spec).await.unwrap();
    let token = token(&instance, "60").await;
    for version in ["latest", "2021-03-23"] {
        let ask = async |path: &str| {
            let url = format!("{}/{version}/{path}", instance.imds_url());
            let request = reqwest::Client::new().get(url).header("X-aws-ec2-metadata-token", &token);
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        let (mut folders, mut found) = (vec![String::new()], Vec::new());
        while let Some(folder) = folders.pop() {
            let (status, listing) = ask(&folder).await;
            assert_eq!(status, 200, "{folder}");
            for entry in listing.lines() {
                match (entry.split_once('='), entry.ends_with('/')) {
                    (Some((number, _)), _) => folders.push(format!("{folder}{number}/")),
                    (None, true) => folders.push(format!("{folder}{entry}")),
                    (None, false) => {
                        let path = format!("{folder}{entry}");
                        let (status, value) = ask(&path).await;
                        assert_eq!(status, 200, "{path}");
                        found.push((path, value));
                    }
                }
            }
        }
        let of = |path: &str| found.iter().find(|(found, _)| found == path).map(|(_, value)| value.as_str());
        assert_eq!(of("user-data"), Some("#!/bin/sh\n"));
        assert_eq!(of("meta-data/public-keys/0/openssh-key"), Some("ssh-ed25519 AAAA"));
        assert_eq!(of("meta-data/mac"), Some("02:00:7f:00:00:01"));
        assert_eq!(of("meta-data/network/interfaces/macs/02:00:7f:00:00:01/device-number"), Some("0"));
        assert_eq!(of("meta-data/tags/instance/instance-agent:cluster"), Some("cluster1"));
        assert_eq!(ask("meta-data/public-keys").await, (200, "0=key".to_owned()));
    }
    let plain = cloud.run_instance(InstanceSpec::new(Ipv4Addr::LOCALHOST)).await.unwrap();
    let token = support::token(&plain, "60").await;
    for absent in ["user-data", "meta-data/public-keys/", "meta-data/public-keys/0/openssh-key"] {
        assert_eq!(metadata(&plain, absent, &token).await.0, 404, "{absent}");
    }
}

#[tokio::test]
async fn metadata_shows_what_is_and_404_for_what_is_not() {
    let (cloud, ..) = cloud().await;
    let spec = InstanceSpec::new(Ipv4Addr::LOCALHOST).tag("instance-agent:cluster", "cluster1");
    let instance = cloud.run_instance(spec).await.unwrap();
    let token = token(&instance, "60").await;
    let look = async |path: &str| metadata(&instance, path, &token).await;
    let found = |text: &str| (200, text.to_owned());
    assert_eq!(look("meta-data/placement/region").await, found("us-east-1"));
    assert_eq!(look("meta-data/placement/").await, found("availability-zone\nregion"));
    assert_eq!(look("meta-data/local-ipv4").await, found("127.0.0.1"));
    assert_eq!(look("meta-data/tags/instance").await, found("instance-agent:cluster"));
    assert_eq!(look("meta-data/tags/instance/instance-agent:cluster").await, found("cluster1"));
    let (_, document) = look("dynamic/instance-identity/document").await;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["instanceId"], instance.id());

    for absent in [
        "spot/instance-action",
        "events/recommendations/rebalance",
        "autoscaling/target-lifecycle-state",
        "tags/instance/other",
    ] {
        assert_eq!(look(&format!("meta-data/{absent}")).await.0, 404, "{absent}");
    }
    instance.set_spot(Some((SpotAction::Stop, SystemTime::UNIX_EPOCH)));
    instance.set_rebalance(Some(SystemTime::UNIX_EPOCH));
    instance.set_lifecycle(Some("InService"));
    assert_eq!(
        look("meta-data/spot/instance-action").await,
        found(r#"{"action":"stop","time":"1970-01-01T00:00:00Z"}"#)
    );
    assert_eq!(look("meta-data/spot/termination-time").await.0, 404, "only for terminate");
    assert_eq!(
        look("meta-data/events/recommendations/rebalance").await,
        found(r#"{"noticeTime":"1970-01-01T00:00:00Z"}"#)
    );
    assert_eq!(look("meta-data/autoscaling/target-lifecycle-state").await, found("InService"));
    instance.publish_tags(false);
    assert_eq!(look("meta-data/tags/instance").await.0, 404);

    instance.set_imds_outage(Outage::Status(503));
    assert_eq!(look("meta-data/instance-id").await.0, 503);
    instance.set_imds_outage(Outage::Refuse);
    let url = format!("{}/latest/meta-data/", instance.imds_url());
    assert!(reqwest::get(&url).await.is_err());
    instance.set_imds_outage(Outage::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(100), reqwest::get(&url)).await;
    assert!(hanging.is_err());
    instance.set_imds_outage(Outage::Up);
    assert_eq!(look("meta-data/instance-id").await.0, 200);
}
