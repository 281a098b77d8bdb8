//! What a metadata service answers: the value at each path, and the listing of each folder.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::model::ids::timestamp;
use crate::model::instances::{Credentials, Instance, InstanceSpec, SpotAction};
use crate::model::state::State;

/// Where the public key is.
const PUBLIC_KEY: &str = "meta-data/public-keys/0/openssh-key";

/// Everything that a metadata service can answer, by the path below its version. Folders follow from
/// the paths.
pub type Leaves = BTreeMap<String, String>;

/// The value at a path, or the listing if the path is a folder, with or without a slash at its end.
pub(crate) fn find(leaves: &Leaves, path: &str) -> Option<String> {
    if let Some(value) = leaves.get(path) {
        return Some(value.clone());
    }
    // The one folder whose listing also names what its entries stand for.
    if path.trim_end_matches('/') == "meta-data/public-keys" {
        return leaves.contains_key(PUBLIC_KEY).then(|| "0=key".to_owned());
    }
    let folder = match path.trim_end_matches('/') {
        "" => String::new(),
        name => format!("{name}/"),
    };
    let below = leaves.keys().filter_map(|leaf| leaf.strip_prefix(folder.as_str()));
    let children: BTreeSet<String> = below
        .map(|rest| match rest.split_once('/') {
            Some((child, _)) => format!("{child}/"),
            None => rest.to_owned(),
        })
        .collect();
    let listing: Vec<String> = children.into_iter().collect();
    (!listing.is_empty()).then(|| listing.join("\n"))
}

/// What follows from the description of an instance alone.
pub fn spec_leaves(spec: &InstanceSpec, id: &str, account: &str, region: &str) -> Leaves {
    let address = spec.address.to_string();
    let host = format!("ip-{}.ec2.internal", address.replace('.', "-"));
    let mut leaves = Leaves::new();
    if let Some(user_data) = &spec.user_data {
        leaves.insert("user-data".to_owned(), user_data.clone());
    }
    if let Some(key) = &spec.public_key {
        leaves.insert(PUBLIC_KEY.to_owned(), key.clone());
    }
    let mut put = |path: &str, value: &str| {
        leaves.insert(format!("meta-data/{path}"), value.to_owned());
    };
    put("ami-id", &spec.image);
    put("hostname", &host);
    put("local-hostname", &host);
    put("instance-id", id);
    put("instance-life-cycle", "on-demand");
    put("instance-type", &spec.instance_type);
    put("local-ipv4", &address);
    put("placement/availability-zone", &spec.zone);
    put("placement/region", region);
    if spec.publishes_tags {
        for (key, value) in &spec.tags {
            put(&format!("tags/instance/{key}"), value);
        }
    }
    let document = json!({
        "accountId": account,
        "architecture": "x86_64",
        "availabilityZone": spec.zone,
        "imageId": spec.image,
        "instanceId": id,
        "instanceType": spec.instance_type,
        "privateIp": address,
        "region": region,
        "version": "2017-09-30",
    });
    leaves.insert("dynamic/instance-identity/document".to_owned(), document.to_string());
    leaves
}

/// What an instance's own service answers. Its role's credentials are given only when asked for: the
/// listing needs the role's name alone.
pub(crate) fn instance_leaves(
    state: &State,
    instance: &Instance,
    credentials: Option<&Credentials>,
) -> Leaves {
    let (spec, account) = (&instance.spec, &state.options.account);
    let mut leaves = spec_leaves(spec, &instance.id, account, &state.options.region);
    let mut put = |path: &str, value: &str| {
        leaves.insert(format!("meta-data/{path}"), value.to_owned());
    };
    let (address, mac) = (spec.address.to_string(), spec.mac());
    put("mac", &mac);
    for (name, value) in
        [("device-number", "0"), ("local-ipv4s", &address), ("mac", &mac), ("vpc-id", &instance.vpc)]
    {
        put(&format!("network/interfaces/macs/{mac}/{name}"), value);
    }
    if let Some(role) = &spec.role {
        let info = json!({
            "Code": "Success",
            "LastUpdated": timestamp(instance.launched),
            "InstanceProfileArn": format!("arn:aws:iam::{account}:instance-profile/{role}"),
            "InstanceProfileId": "AIPALOCALCLOUD",
        });
        put("iam/info", &info.to_string());
        let credentials = credentials.map(credentials_document).unwrap_or_default();
        put(&format!("iam/security-credentials/{role}"), &credentials);
    }
    if let Some((action, time)) = instance.spot {
        put("instance-life-cycle", "spot");
        let notice = json!({ "action": action.as_str(), "time": timestamp(time) });
        put("spot/instance-action", &notice.to_string());
        if action == SpotAction::Terminate {
            put("spot/termination-time", &timestamp(time));
        }
    }
    if let Some(noticed) = instance.rebalance {
        let notice = json!({ "noticeTime": timestamp(noticed) });
        put("events/recommendations/rebalance", &notice.to_string());
    }
    if let Some(lifecycle) = &instance.lifecycle {
        put("autoscaling/target-lifecycle-state", lifecycle);
    }
    leaves
}

fn credentials_document(credentials: &Credentials) -> String {
    let document = json!({
        "Code": "Success",
        "LastUpdated": timestamp(credentials.issued),
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Token": credentials.session_token,
        "Expiration": credentials.expires.map(timestamp),
    });
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_from_the_leaves() {
        let leaves: BTreeMap<String, String> = ["meta-data/a", "meta-data/p/x", "meta-data/p/y"]
            .map(|path| (path.to_owned(), "v".to_owned()))
            .into();
        assert_eq!(find(&leaves, "meta-data/a").as_deref(), Some("v"));
        assert_eq!(find(&leaves, "meta-data/a/"), None, "a leaf is no folder");
        assert_eq!(find(&leaves, "meta-data/").as_deref(), Some("a\np/"));
        assert_eq!(find(&leaves, "meta-data/p").as_deref(), Some("x\ny"));
        assert_eq!(find(&leaves, "meta-data/q"), None);
        assert_eq!(find(&leaves, "").as_deref(), Some("meta-data/"));
    }
}
