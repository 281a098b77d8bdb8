//! What the metadata service tells each instance: what moto knows of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use local_cloud::{InstanceSpec, Leaves, serve_metadata, spec_leaves};
use serde_json::json;
use tokio::net::TcpListener;

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
            Some(leaves(&machine, address, credentials))
        }
    })
    .await;
}

fn leaves(machine: &Machine, address: Ipv4Addr, credentials: Option<(String, serde_json::Value)>) -> Leaves {
    let instance = machine.instance();
    let spec = InstanceSpec {
        image: instance.image,
        instance_type: instance.kind,
        zone: instance.zone,
        tags: instance.tags,
        publishes_tags: machine.publishes_tags(),
        user_data: machine.user_data().map(str::to_owned),
        ..InstanceSpec::new(address)
    };
    let mut leaves = spec_leaves(&spec, &instance.id, ACCOUNT, REGION);
    let mut put = |path: &str, value: &str| {
        leaves.insert(format!("meta-data/{path}"), value.to_owned());
    };
    if let Some(public) = instance.public {
        put("public-ipv4", &public.to_string());
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
