//! `verify`: check through the load balancer that a fleet does what it should.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

use super::fleet_request::ExistingFleet;
use super::status::{rows, snapshot};
use crate::cloud::look::{asking, look, waiting};
use crate::fleet::Root;
use crate::output::{Outcome, Output, print, print_json, remark};
use crate::verify::{self, VerifyTarget};

/// Checks through the balancer that the fleet does what it should.
///
/// # Errors
/// A call failed, there is no such fleet, or a check failed.
pub(crate) async fn verify(fleet: ExistingFleet, output: Output) -> Result<Outcome> {
    let (cloud, name) = fleet.connect().await?;
    let found = look(snapshot(&cloud, &name)).await??;
    let Some(balancer) = &found.have.balancer else {
        let names = &found.desired.names;
        bail!(
            "fleet {name} has no load balancer in {}; {} finishes it",
            cloud.region,
            names.launch_command()
        );
    };
    let port = found.have.listener.as_ref().map_or(found.desired.fleet.port, |listener| listener.port);
    let rows = rows(&found.desired, &found.have, Some(&found.health)).into_iter();
    // `verify` expects of instances no more than `status` does, but every instance that gets requests must answer right.
    let serving = rows.filter(|row| row.counts || row.is_healthy);
    let instances = serving.map(|row| {
        let reason = row.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let unhealthy = (!row.is_healthy).then(|| format!("{}{reason}", row.target_state));
        let address = row.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
        verify::Instance {
            id: row.id,
            group: row.group,
            address: address.map(|address| SocketAddr::new(address, found.desired.fleet.port)),
            unhealthy,
        }
    });
    let target = VerifyTarget {
        url: format!("http://{}:{port}", balancer.dns_name),
        groups: found.desired.fleet.groups.clone(),
        instances: instances.collect(),
    };
    if target.groups.iter().any(|group| group.root == Root::Seed) {
        remark(
            "verify stores test numbers at the instances, reads them through the load balancer, and restores the \
             previous numbers",
        );
    }
    let verifying = verify::verify(&target, |check| {
        if output == Output::Text {
            print(&format!("{check}\n"));
        }
    });
    let report = waiting(asking(&target.url, "verify what the fleet answers", verifying)).await;
    if output == Output::Json {
        print_json(&report.to_json());
    }
    if report.is_ok() {
        return Ok(Outcome::Done);
    }
    remark(&format!("bootstrap: fleet {name} failed checks: see the lines with FAILED"));
    Ok(Outcome::Failed)
}
