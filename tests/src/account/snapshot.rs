//! Everything that exists in an account, in a form that two moments can be compared by.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::agents::decoded;
use super::request::Request;
use super::xml::Element;
use super::{Account, REGION};

/// What is another at each creation, or moves by itself.
const FLEETING: [&str; 13] = [
    "availableIpAddressCount",
    "CreatedTime",
    "CreateDate",
    "LastModified",
    "launchTime",
    "attachTime",
    "createTime",
    "RoleLastUsed",
    "requestId",
    "ResponseMetadata",
    "usageOperationUpdateTime",
    "PasswordLastUsed",
    "ETag",
];

impl Account {
    /// Everything that exists: network, groups with their rules, instances that are not terminated, balancers
    /// with all that belongs to them, roles, buckets. Ids and times are what they are; see [`without_ids`].
    pub async fn snapshot(&self) -> Value {
        let mut all = Map::new();
        for (action, list) in [
            ("DescribeVpcs", "vpcSet"),
            ("DescribeSubnets", "subnetSet"),
            ("DescribeSecurityGroups", "securityGroupInfo"),
            ("DescribeKeyPairs", "keySet"),
            ("DescribeLaunchTemplates", "launchTemplates"),
            ("DescribeAddresses", "addressesSet"),
        ] {
            let found = self.look("ec2", action, &[]).await;
            all.insert(list.to_owned(), items(found.list(list)));
        }
        let instances = self.look("ec2", "DescribeInstances", &[]).await;
        let instances =
            instances.list("reservationSet").iter().flat_map(|reservation| reservation.list("instancesSet"));
        let alive = instances.filter(|item| item.say("instanceState/name") != "terminated").cloned();
        all.insert("instances".to_owned(), items(&alive.collect::<Vec<_>>()));
        let volumes = self.look("ec2", "DescribeVolumes", &[]).await;
        all.insert("volumes".to_owned(), items(volumes.list("volumeSet")));
        all.insert("balancers".to_owned(), self.balancers().await);
        all.insert("targetGroups".to_owned(), self.target_groups().await);
        all.insert("roles".to_owned(), self.roles().await);
        let profiles = self.look("iam", "ListInstanceProfiles", &[]).await;
        let profiles = profiles.list("ListInstanceProfilesResult/InstanceProfiles");
        all.insert("instanceProfiles".to_owned(), items(profiles));
        all.insert("buckets".to_owned(), self.buckets().await);
        Value::Object(all)
    }

    async fn look(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Element {
        let answer = self.ask(service, action, parameters).await;
        assert!(answer.ok(), "{action}: {answer:?}");
        answer.xml()
    }

    async fn elb(&self, action: &str, parameters: &[(&str, &str)], list: &str) -> Vec<Element> {
        let found = self.look("elasticloadbalancing", action, parameters).await;
        found.list(&format!("{action}Result/{list}")).to_vec()
    }

    async fn elb_tags(&self, arn: &str) -> Value {
        let found = self.elb("DescribeTags", &[("ResourceArns.member.1", arn)], "TagDescriptions").await;
        let mut tags = found.first().map(|found| found.tags("Tags")).unwrap_or_default();
        tags.sort();
        json!(tags)
    }

    async fn balancers(&self) -> Value {
        let mut all = Vec::new();
        for balancer in self.elb("DescribeLoadBalancers", &[], "LoadBalancers").await {
            let arn = balancer.say("LoadBalancerArn");
            let mut listeners = Vec::new();
            for listener in self.elb("DescribeListeners", &[("LoadBalancerArn", arn)], "Listeners").await {
                let arn = listener.say("ListenerArn");
                let mut rules = Vec::new();
                for rule in self.elb("DescribeRules", &[("ListenerArn", arn)], "Rules").await {
                    let mut value = plain(&rule);
                    value["tags"] = self.elb_tags(rule.say("RuleArn")).await;
                    rules.push(value);
                }
                let mut value = plain(&listener);
                value["tags"] = self.elb_tags(arn).await;
                value["rules"] = sorted(rules);
                listeners.push(value);
            }
            let attributes = [("LoadBalancerArn", arn)];
            let attributes = self.elb("DescribeLoadBalancerAttributes", &attributes, "Attributes").await;
            let mut value = plain(&balancer);
            value["attributes"] = items(&attributes);
            value["tags"] = self.elb_tags(arn).await;
            value["listeners"] = sorted(listeners);
            // It ends by itself.
            value.as_object_mut().expect("an object").remove("State");
            all.push(value);
        }
        sorted(all)
    }

    async fn target_groups(&self) -> Value {
        let mut all = Vec::new();
        for group in self.elb("DescribeTargetGroups", &[], "TargetGroups").await {
            let arn = group.say("TargetGroupArn");
            let asked = [("TargetGroupArn", arn)];
            let mut value = plain(&group);
            // moto remembers balancers that are gone.
            value.as_object_mut().expect("an object").remove("LoadBalancerArns");
            value["attributes"] =
                items(&self.elb("DescribeTargetGroupAttributes", &asked, "Attributes").await);
            value["targets"] =
                items(&self.elb("DescribeTargetHealth", &asked, "TargetHealthDescriptions").await);
            value["tags"] = self.elb_tags(arn).await;
            all.push(value);
        }
        sorted(all)
    }

    async fn roles(&self) -> Value {
        let mut all = Vec::new();
        for role in self.look("iam", "ListRoles", &[]).await.list("ListRolesResult/Roles") {
            let name = role.say("RoleName");
            let asked = [("RoleName", name)];
            let mut value = plain(role);
            let policies = self.look("iam", "ListRolePolicies", &asked).await;
            let mut documents = Vec::new();
            for policy in policies.list("ListRolePoliciesResult/PolicyNames") {
                let found =
                    self.look("iam", "GetRolePolicy", &[asked[0], ("PolicyName", &policy.text)]).await;
                let document = decoded(found.say("GetRolePolicyResult/PolicyDocument"));
                let document: Value = serde_json::from_str(&document).expect("JSON");
                documents.push(json!([policy.text, document]));
            }
            value["policies"] = sorted(documents);
            let attached = self.look("iam", "ListAttachedRolePolicies", &asked).await;
            value["attached"] = items(attached.list("ListAttachedRolePoliciesResult/AttachedPolicies"));
            let tags = self.look("iam", "ListRoleTags", &asked).await;
            value["tags"] = json!(tags.tags("ListRoleTagsResult/Tags"));
            all.push(value);
        }
        sorted(all)
    }

    async fn s3(&self, path: &str) -> Element {
        let answer = self.upstream.send(&Request::s3(path)).await;
        if answer.status == 404 {
            return Element::default();
        }
        assert!(answer.ok(), "{path}: {answer:?}");
        answer.xml()
    }

    async fn buckets(&self) -> Value {
        let mut all = Vec::new();
        for bucket in self.s3("/").await.list("Buckets") {
            let name = bucket.say("Name");
            let versions = self.s3(&format!("/{name}?versions")).await;
            let kept = ["Version", "DeleteMarker"];
            let versions =
                versions.children.iter().filter(|child| kept.contains(&child.name.as_str())).cloned();
            let tags = self.s3(&format!("/{name}?tagging")).await.tags("TagSet");
            let blocked = self.s3(&format!("/{name}?publicAccessBlock")).await;
            all.push(json!({
                "name": name, "versions": items(&versions.collect::<Vec<_>>()), "tags": tags,
                "publicAccessBlock": items(&blocked.children),
            }));
        }
        sorted(all)
    }
}

/// What AWS or moto chooses anew for each thing, or counts.
const CHOSEN: [&str; 11] = [
    "dnsName",
    "privateDnsName",
    "publicDnsName",
    "ipAddress",
    "privateIpAddress",
    "publicIp",
    "macAddress",
    "InstanceProfileId",
    "kmsKeyId",
    "RoleId",
    "clientToken",
];

/// A snapshot without what AWS chose, so that two launches of one fleet compare equal: ids, addresses,
/// and client tokens, which follow from ids.
pub fn without_ids(snapshot: &Value) -> Value {
    match snapshot {
        Value::String(text) => Value::String(without_ids_in(text)),
        Value::Array(values) => sorted(values.iter().map(without_ids).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(key, _)| !CHOSEN.contains(&key.as_str()));
            Value::Object(fields.map(|(key, value)| (key.clone(), without_ids(value))).collect())
        }
        other => other.clone(),
    }
}

/// Eight or more hexadecimal digits, a decimal one among them, become `#`; but the id of an image is
/// not chosen anew, and neither is the name of a file.
fn without_ids_in(text: &str) -> String {
    if text.starts_with("ami-") || text.contains(".deb") {
        return text.to_owned();
    }
    let mut plain = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let id = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_hex = id.chars().all(|c| c.is_ascii_hexdigit()) && id.chars().any(|c| c.is_ascii_digit());
        if id.len() >= 8 && is_hex {
            plain.push('#');
            plain += &word[id.len()..];
        } else {
            plain += word;
        }
    }
    plain
}

/// Where two snapshots differ, and how: one line for each place.
pub fn differences(left: &Value, right: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", left, right, &mut found);
    found
}

fn differ(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let of = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                differ(&format!("{path}/{key}"), &of(left), &of(right), found);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            let (mut gone, mut new) = (left.clone(), Vec::new());
            for value in right {
                match gone.iter().position(|other| other == value) {
                    Some(at) => drop(gone.remove(at)),
                    None => new.push(value.clone()),
                }
            }
            if gone.len() == 1 && new.len() == 1 {
                differ(&format!("{path}/0"), &gone[0], &new[0], found);
            } else {
                found.extend(gone.iter().map(|value| format!("- {path}: {value}")));
                found.extend(new.iter().map(|value| format!("+ {path}: {value}")));
            }
        }
        _ if left != right => found.push(format!("{path}: {left} -> {right}")),
        _ => {}
    }
}

fn items(elements: &[Element]) -> Value {
    sorted(elements.iter().map(plain).collect())
}

/// An element as JSON, without what is fleeting.
fn plain(element: &Element) -> Value {
    if element.children.is_empty() {
        return Value::String(element.text.clone());
    }
    let listed = element.children.iter().all(|child| ["item", "member"].contains(&child.name.as_str()));
    if listed {
        return items(&element.children);
    }
    let mut fields = Map::new();
    for child in element.children.iter().filter(|child| !FLEETING.contains(&child.name.as_str())) {
        fields.insert(child.name.clone(), plain(child));
    }
    Value::Object(fields)
}

fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by_key(Value::to_string);
    Value::Array(values)
}

impl Request {
    /// A look at S3, as the account's owner.
    fn s3(path: &str) -> Self {
        let mut request = Self::query("s3", "", &[]);
        request.method = hyper::Method::GET;
        request.uri = path.parse().expect("a path");
        request.region = REGION.to_owned();
        request.body = bytes::Bytes::new();
        request
    }
}
