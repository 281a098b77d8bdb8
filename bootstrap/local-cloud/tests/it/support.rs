//! A client that signs as the SDK does, and targets that behave as they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use local_cloud::{
    BalancerHandle, BalancerSpec, Forward, HealthCheck, InstanceHandle, InstanceSpec, LocalCloud,
    LocalCloudOptions, TargetGroupSpec, TargetState, TargetStatus, timestamp,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How a target treats a request that is not a probe.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// 200 with this body, on a connection that stays open.
    Answer(&'static str),
    /// Exactly these bytes, then the connection is closed.
    Raw(&'static str),
    /// RST instead of an answer.
    Reset,
    /// No answer.
    Silence,
    /// 200 with the request's body, which is read to its Content-Length.
    Echo,
}

/// A target: probes are answered with `probe`, everything else by its behaviour.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) probe: Arc<Mutex<u16>>,
    /// The heads of all requests.
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    /// Connections accepted.
    pub(crate) connections: Arc<Mutex<usize>>,
}

impl Target {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            probe: Arc::new(Mutex::new(200)),
            heads: Arc::default(),
            connections: Arc::default(),
        };
        let serving = target.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *serving.connections.lock().unwrap() += 1;
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        target
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        let is_probe = |head: &&String| head.contains("ELB-HealthChecker");
        heads.iter().filter(|head| !is_probe(head)).cloned().collect()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                }
            };
            let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
            self.heads.lock().unwrap().push(head.clone());
            let behaviour = self.behaviour.lock().unwrap().clone();
            let answer = |status: u16, body: &str| {
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            if head.contains("ELB-HealthChecker") {
                let status = *self.probe.lock().unwrap();
                let _ = stream.write_all(answer(status, "").as_bytes()).await;
                return;
            }
            let written = match behaviour {
                Behaviour::Answer(body) => stream.write_all(answer(200, body).as_bytes()).await,
                Behaviour::Raw(bytes) => {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                    return;
                }
                Behaviour::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                Behaviour::Silence => std::future::pending().await,
                Behaviour::Echo => {
                    let lower = head.to_ascii_lowercase();
                    let length = lower.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    while bytes.len() < length {
                        let read = stream.read(&mut buffer).await.unwrap();
                        bytes.extend_from_slice(&buffer[..read]);
                    }
                    let body = String::from_utf8(bytes.drain(..length).collect()).unwrap();
                    stream.write_all(answer(200, &body).as_bytes()).await
                }
            };
            if written.is_err() {
                return;
            }
        }
    }
}

/// A quick health check: the default thresholds, twenty probes a second.
pub(crate) fn group(name: &str) -> TargetGroupSpec {
    TargetGroupSpec {
        health_check: HealthCheck {
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(500),
            ..HealthCheck::default()
        },
        ..TargetGroupSpec::new(name, 80)
    }
}

pub(crate) fn options() -> LocalCloudOptions {
    LocalCloudOptions { registration_time: Duration::from_millis(20), ..LocalCloudOptions::default() }
}

/// An instance at 127.0.0.1, where the targets are.
pub(crate) async fn instance(cloud: &LocalCloud) -> InstanceHandle {
    let spec = InstanceSpec::new(Ipv4Addr::LOCALHOST);
    cloud.run_instance(spec).await.unwrap()
}

/// A cloud with one group `g` that is used by a balancer.
pub(crate) async fn cloud() -> (LocalCloud, String, BalancerHandle) {
    let cloud = LocalCloud::start(options()).await.unwrap();
    let arn = cloud.create_target_group(group("g"));
    let spec = BalancerSpec::new("b", Forward::to(&arn));
    let balancer = cloud.create_balancer(spec).await.unwrap();
    (cloud, arn, balancer)
}

/// State and reason of a group's only target.
pub(crate) fn only_target(cloud: &LocalCloud, arn: &str) -> (TargetState, Option<&'static str>) {
    match cloud.target_health(arn).as_slice() {
        [TargetStatus { health, .. }] => (health.state, health.reason),
        other => panic!("not one target: {other:?}"),
    }
}

/// A status and a body.
pub(crate) async fn get(url: &str) -> (u16, String) {
    let response = reqwest::Client::new().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A session token for the instance's metadata.
pub(crate) async fn token(instance: &InstanceHandle, ttl: &str) -> String {
    let url = format!("{}/latest/api/token", instance.imds_url());
    let request = reqwest::Client::new().put(url);
    let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", ttl);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

/// What the metadata answers at a path below `/latest/`.
pub(crate) async fn metadata(instance: &InstanceHandle, path: &str, token: &str) -> (u16, String) {
    let url = format!("{}/latest/{path}", instance.imds_url());
    let request = reqwest::Client::new().get(url);
    let request = request.header("X-aws-ec2-metadata-token", token);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A caller of the API; each part of the signature can be spoilt.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) endpoint: String,
    pub(crate) access_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) date: Option<String>,
    pub(crate) signed: String,
}

impl Caller {
    /// With the instance's own credentials.
    pub(crate) async fn instance(cloud: &LocalCloud, instance: &InstanceHandle) -> Self {
        let token = token(instance, "60").await;
        let role = "meta-data/iam/security-credentials/";
        let (_, name) = metadata(instance, role, &token).await;
        let (status, json) = metadata(instance, &format!("{role}{name}"), &token).await;
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        Self {
            endpoint: cloud.endpoint_url(),
            access_key: json["AccessKeyId"].as_str().unwrap().to_owned(),
            session_token: Some(json["Token"].as_str().unwrap().to_owned()),
            region: "us-east-1".to_owned(),
            service: "elasticloadbalancing".to_owned(),
            version: "2015-12-01".to_owned(),
            date: None,
            signed: "host;x-amz-date;x-amz-security-token".to_owned(),
        }
    }

    /// The same for EC2.
    pub(crate) fn ec2(&self) -> Self {
        Self { service: "ec2".to_owned(), version: "2016-11-15".to_owned(), ..self.clone() }
    }

    /// Calls an action that is answered; status and XML.
    pub(crate) async fn call(&self, action: &str, params: &[(&str, &str)]) -> (u16, String) {
        self.try_call(action, params).await.unwrap()
    }

    /// Calls an action; status and XML, if there is an answer.
    pub(crate) async fn try_call(
        &self,
        action: &str,
        params: &[(&str, &str)],
    ) -> reqwest::Result<(u16, String)> {
        let date = self.date.clone().unwrap_or_else(|| compact(SystemTime::now()));
        let scope = format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.access_key,
            self.signed,
            "0".repeat(64)
        );
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", &self.version)
            .extend_pairs(params)
            .finish();
        let mut request = reqwest::Client::new()
            .post(&self.endpoint)
            .header("authorization", authorization)
            .header("x-amz-date", date)
            .body(body);
        if let Some(token) = &self.session_token {
            request = request.header("x-amz-security-token", token);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Calls an action that has to succeed.
    pub(crate) async fn ok(&self, action: &str, params: &[(&str, &str)]) -> String {
        let (status, xml) = self.call(action, params).await;
        assert_eq!(status, 200, "{xml}");
        xml
    }

    /// Calls an action that has to fail; status and error code.
    pub(crate) async fn error(&self, action: &str, params: &[(&str, &str)]) -> (u16, String) {
        let (status, xml) = self.call(action, params).await;
        assert_ne!(status, 200, "{xml}");
        (status, between(&xml, "Code"))
    }

    /// Registers a target and waits until it is healthy.
    pub(crate) async fn register_healthy(&self, cloud: &LocalCloud, arn: &str, id: &str, port: u16) {
        self.register(arn, id, port).await;
        let healthy = |cloud: &LocalCloud| cloud.health_of(arn, id, port).reason.is_none();
        assert!(cloud.wait_until(LIMIT, healthy).await, "{:?}", cloud.health_changes());
    }

    /// Registers a target.
    pub(crate) async fn register(&self, arn: &str, id: &str, port: u16) {
        self.ok("RegisterTargets", &target_params(arn, id, &port.to_string())).await;
    }
}

/// The parameters that name one target.
pub(crate) fn target_params<'a>(arn: &'a str, id: &'a str, port: &'a str) -> [(&'a str, &'a str); 3] {
    [("TargetGroupArn", arn), ("Targets.member.1.Id", id), ("Targets.member.1.Port", port)]
}

/// The text of the first element with this name.
pub(crate) fn between(xml: &str, name: &str) -> String {
    let rest = xml.split(&format!("<{name}>")).nth(1).unwrap_or_default();
    rest.split(&format!("</{name}>")).next().unwrap_or_default().to_owned()
}

/// A time as signatures have it.
pub(crate) fn compact(time: SystemTime) -> String {
    timestamp(time).replace(['-', ':'], "")
}

/// Lets the cloud's clock jump. The clock runs again before anything is waited for: a clock that
/// stays paused would run every timeout out while the sockets are still busy.
pub(crate) async fn jump(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
