//! What the metadata service tells each instance: what moto knows of it.

use std::net::IpAddr;
use std::sync::Arc;

use local_cloud::{Leaves, serve_metadata};
use serde_json::json;
use tokio::net::TcpListener;

use super::Instance;
use super::machines::{Machine, Machines};
use crate::account::{ACCOUNT, REGION};

/// Serves everyone's metadata until this is dropped; who asks is known by the address.
pub(super) async fn serve(listener: TcpListener, machines: Arc<Machines>) {
    serve_metadata(listener, move |address| {
        let machines = Arc::clone(&machines);
        async move {
            let IpAddr::V4(address) = address else { return None };
            let machine = machines.at(address)?;
            let credentials = machine.credentials(&machines.account).await;
            Some(leaves(&machine, credentials))
        }
    })
    .await;
}

fn leaves(machine: &Machine, credentials: Option<(String, serde_json::Value)>) -> Leaves {
    let instance = machine.instance();
    let address = instance.private.map(|address| address.to_string()).unwrap_or_default();
    let host = format!("ip-{}.ec2.internal", address.replace('.', "-"));
    let mut leaves = Leaves::new();
    if let Some(user_data) = machine.user_data() {
        leaves.insert("user-data".to_owned(), user_data.to_owned());
    }
    leaves.insert("dynamic/instance-identity/document".to_owned(), document(&instance, &address));
    let mut put = |path: &str, value: &str| {
        leaves.insert(format!("meta-data/{path}"), value.to_owned());
    };
    put("ami-id", &instance.image);
    put("hostname", &host);
    put("local-hostname", &host);
    put("instance-id", &instance.id);
    put("instance-life-cycle", "on-demand");
    put("instance-type", &instance.kind);
    put("local-ipv4", &address);
    if let Some(public) = instance.public {
        put("public-ipv4", &public.to_string());
    }
    put("placement/availability-zone", &instance.zone);
    put("placement/region", REGION);
    if machine.publishes_tags() {
        for (key, value) in &instance.tags {
            put(&format!("tags/instance/{key}"), value);
        }
    }
    if let Some((role, credentials)) = credentials {
        let profile = format!("arn:aws:iam::{ACCOUNT}:instance-profile/{}", instance.profile);
        let info = json!({
            "Code": "Success", "InstanceProfileArn": profile, "InstanceProfileId": "AIPAEXAMPLE",
        });
        put("iam/info", &info.to_string());
        put(&format!("iam/security-credentials/{role}"), &credentials.to_string());
    }
    for (path, value) in machine.notices() {
        put(&path, &value);
    }
    leaves
}

fn document(instance: &Instance, address: &str) -> String {
    let document = json!({
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": instance.zone,
        "imageId": instance.image,
        "instanceId": instance.id,
        "instanceType": instance.kind,
        "privateIp": address,
        "region": REGION,
        "version": "2017-09-30",
    });
    document.to_string()
}
