//! Instances as AWS runs them: one launch for each client token, all or nothing, and states that
//! take their time.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use local_cloud::timestamp;

use super::answer::{Answer, AwsError};
use super::request::Request;
use super::state::State;
use super::xml::Element;

/// What the front knows of instances beyond moto.
#[derive(Default)]
pub(super) struct Instances {
    launches: HashMap<String, Launch>,
    known: BTreeMap<String, Known>,
    profiles_to_come: HashMap<String, u32>,
    offered: HashMap<(String, String), bool>,
}

struct Launch {
    parameters: BTreeMap<String, String>,
    instances: Vec<String>,
    /// What was answered.
    answer: Answer,
}

struct Known {
    token: String,
    kind: String,
    profile: String,
    pending: u32,
    /// Looks that do not show it yet.
    unseen: u32,
    shutting_down: Option<u32>,
}

const MOST_USER_DATA: usize = 16 * 1024;

impl State {
    /// A call came: new instances are so much nearer to running.
    pub(super) fn instances_age(&mut self) {
        for known in self.instances.known.values_mut() {
            known.pending = known.pending.saturating_sub(1);
        }
    }

    /// Time has passed: whatever was launched is shown.
    pub(super) fn instances_are_seen(&mut self) {
        for known in self.instances.known.values_mut() {
            known.unseen = 0;
        }
    }

    /// Whether an instance has booted.
    pub(super) fn is_running(&self, id: &str) -> bool {
        self.instances.known.get(id).is_none_or(|known| known.pending == 0 && known.shutting_down.is_none())
    }

    /// The name of the instance profile of an instance.
    pub(super) fn profile_of(&self, id: &str) -> &str {
        self.instances.known.get(id).map_or("", |known| &known.profile)
    }

    /// A profile was created.
    pub(super) fn profile_is_new(&mut self, name: &str) {
        self.instances.profiles_to_come.insert(name.to_owned(), self.options.invisible_profiles);
    }

    pub(super) async fn run_instances(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let token = request.get("ClientToken").to_owned();
        if token.len() > 64 || !token.is_ascii() {
            return Err(AwsError::client(
                "InvalidParameterValue",
                "clientToken: at most 64 ASCII characters",
            ));
        }
        let mut parameters = request.parameters.clone();
        parameters.remove("ClientToken");
        if let Some(launch) = self.instances.launches.get(&token).filter(|_| !token.is_empty()) {
            if launch.parameters != parameters {
                let text = "Arguments on this idempotent request are inconsistent with arguments used in \
                            previous request(s).";
                return Err(AwsError::client("IdempotentParameterMismatch", text));
            }
            if self.options.old_answers {
                return Ok(launch.answer.clone());
            }
            let instances = launch.instances.clone();
            return self.launched_before(&instances).await;
        }
        check_launch(request)?;
        for group in request.list("SecurityGroupId") {
            self.group_is_visible(group, "RunInstances")?;
        }
        let profile = self.profile(request).await?;
        let (least, most) = (number(request, "MinCount")?, number(request, "MaxCount")?);
        if least > most || least == 0 {
            return Err(AwsError::client("InvalidParameterValue", "MinCount must be from 1 to MaxCount"));
        }
        let kind = request.get("InstanceType").to_owned();
        let zone = self.zone_of(request).await?;
        if !zone.is_empty() && !self.is_offered(&kind, &zone).await? {
            let text = format!(
                "Your requested instance type ({kind}) is not supported in your requested Availability Zone ({zone})."
            );
            return Err(AwsError::client("Unsupported", text));
        }
        self.quota_allows(&kind, least).await?;
        let room = self.options.capacity.get(&zone).copied().unwrap_or(u32::MAX);
        if room < least {
            let text = format!(
                "We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone})."
            );
            return Err(AwsError::new(500, "InsufficientInstanceCapacity", text));
        }
        let count = most.min(room);
        let answer = self.launch(request, count).await;
        if !answer.ok() {
            return Ok(answer);
        }
        if let Some(room) = self.options.capacity.get_mut(&zone) {
            *room -= count;
        }
        let mut document = answer.xml();
        let mut instances = Vec::new();
        let pending = self.options.pending;
        for item in document.at_mut("instancesSet").map(|set| &mut set.children).into_iter().flatten() {
            let id = item.say("instanceId").to_owned();
            let known = Known {
                token: token.clone(),
                kind: kind.clone(),
                profile: profile.clone(),
                pending,
                unseen: self.options.unseen_instances,
                shutting_down: None,
            };
            self.instances.known.insert(id.clone(), known);
            set_state(item, 0, "pending");
            item.set(Element::text("clientToken", token.as_str()));
            instances.push(id);
        }
        self.boots(&instances, request);
        let answer = answer.with(&document);
        if !token.is_empty() {
            let launch = Launch { parameters, instances, answer: answer.clone() };
            self.instances.launches.insert(token, launch);
        }
        Ok(answer)
    }

    /// moto launches `MinCount` of them, and wants sizes where AWS takes the image's.
    async fn launch(&self, request: &Request, count: u32) -> Answer {
        let mut changed = request.clone();
        changed.parameters.insert("MinCount".to_owned(), count.to_string());
        changed.parameters.insert("MaxCount".to_owned(), count.to_string());
        let disks = (1..).map(|n| format!("BlockDeviceMapping.{n}"));
        for disk in disks.take_while(|disk| request.parameters.contains_key(&format!("{disk}.DeviceName"))) {
            let size = format!("{disk}.Ebs.VolumeSize");
            if !request.parameters.contains_key(&format!("{disk}.Ebs.SnapshotId")) {
                changed.parameters.entry(size).or_insert_with(|| "8".to_owned());
            }
        }
        if changed.parameters == request.parameters {
            return self.forward(request).await;
        }
        self.forward_changed(request, changed).await
    }

    /// The answer to a launch that was already made: its instances as they are now.
    async fn launched_before(&mut self, instances: &[String]) -> Result<Answer, AwsError> {
        let names: Vec<String> = (1..=instances.len()).map(|n| format!("InstanceId.{n}")).collect();
        let ids: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(instances.iter().map(String::as_str)).collect();
        let mut found = self.moto.look("ec2", "DescribeInstances", &ids).await?;
        self.show_instances(&mut found);
        let mut reservation = found.list("reservationSet").first().cloned().unwrap_or_default();
        reservation.name = "RunInstancesResponse".to_owned();
        reservation.children.insert(0, Element::text("requestId", "launched-before"));
        Ok(Answer::document(&reservation))
    }

    pub(super) async fn describe_instances(&mut self, request: &Request) -> Result<Answer, AwsError> {
        // The states and tokens that these filters mean are the front's.
        let own = ["client-token", "instance-state-name", "instance-state-code"];
        let filters: Vec<(String, Vec<String>)> = request
            .filters()
            .into_iter()
            .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()))
            .collect();
        let (own, others): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|(name, _)| own.contains(&name.as_str()));
        let answer = if own.is_empty() {
            self.forward(request).await
        } else {
            let mut changed = request.clone();
            changed.set_filters(&others);
            changed.rewritten();
            self.forward_changed(request, changed).await
        };
        if !answer.ok() {
            return Ok(answer);
        }
        let mut document = answer.xml();
        self.show_instances(&mut document);
        let mut unseen = Vec::new();
        for id in ids(&document) {
            if let Some(known) = self.instances.known.get_mut(&id).filter(|known| known.unseen > 0) {
                known.unseen -= 1;
                unseen.push(id);
            }
        }
        let wanted = |item: &Element| {
            let shown = !unseen.iter().any(|id| id == item.say("instanceId"));
            shown
                && own.iter().all(|(name, values)| {
                    let value = match name.as_str() {
                        "client-token" => item.say("clientToken"),
                        "instance-state-name" => item.say("instanceState/name"),
                        _ => item.say("instanceState/code"),
                    };
                    values.iter().any(|wanted| wanted == value)
                })
        };
        if let Some(reservations) = document.child_mut("reservationSet") {
            for reservation in &mut reservations.children {
                if let Some(set) = reservation.child_mut("instancesSet") {
                    set.children.retain(&wanted);
                }
            }
            reservations.children.retain(|reservation| !reservation.list("instancesSet").is_empty());
        }
        for id in ids(&document) {
            self.looked_at(&id);
        }
        Ok(answer.with(&document))
    }

    /// Makes a description say what AWS would.
    fn show_instances(&self, document: &mut Element) {
        let reservations = document.child_mut("reservationSet").map(|set| &mut set.children);
        for reservation in reservations.into_iter().flatten() {
            let items = reservation.child_mut("instancesSet").map(|set| &mut set.children);
            for item in items.into_iter().flatten() {
                let Some(known) = self.instances.known.get(item.say("instanceId")) else {
                    continue;
                };
                item.set(Element::text("clientToken", known.token.as_str()));
                if !self.options.age.is_zero() {
                    item.set(Element::text("launchTime", timestamp(SystemTime::now() - self.options.age)));
                }
                match known.shutting_down {
                    Some(0) => {}
                    Some(_) => set_state(item, 32, "shutting-down"),
                    None if known.pending > 0 => set_state(item, 0, "pending"),
                    None => {}
                }
                // moto gives a launch's profile to the first instance alone.
                if !known.profile.is_empty() {
                    let arn = format!("arn:aws:iam::{}:instance-profile/{}", super::ACCOUNT, known.profile);
                    let profile = vec![Element::text("arn", arn), Element::text("id", "AIPAEXAMPLE")];
                    item.set(Element::of("iamInstanceProfile", profile));
                }
            }
        }
    }

    pub(super) async fn terminate_instances(&mut self, request: &Request) -> Result<Answer, AwsError> {
        // moto has terminated those that come before by then.
        for id in request.list("InstanceId") {
            let asked = [("InstanceId", id), ("Attribute", "disableApiTermination")];
            let found = self.moto.look("ec2", "DescribeInstanceAttribute", &asked).await;
            if found.is_ok_and(|found| found.say("disableApiTermination/value") == "true") {
                let text = format!(
                    "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute \
                     and try again."
                );
                return Err(AwsError::client("OperationNotPermitted", text));
            }
        }
        let answer = self.forward(request).await;
        if answer.ok() {
            for id in request.list("InstanceId") {
                let shutting_down = self.options.shutting_down;
                if let Some(known) = self.instances.known.get_mut(id) {
                    known.shutting_down.get_or_insert(shutting_down);
                }
                self.leaves(id);
            }
        }
        Ok(answer)
    }

    /// Whether an instance still counts as using its security groups.
    pub(super) fn holds_its_groups(&mut self, item: &Element) -> bool {
        let id = item.say("instanceId");
        let lingers =
            self.instances.known.get(id).and_then(|known| known.shutting_down).is_some_and(|left| left > 0);
        self.looked_at(id);
        item.say("instanceState/name") != "terminated" || lingers
    }

    fn looked_at(&mut self, id: &str) {
        if let Some(Known { shutting_down: Some(left), .. }) = self.instances.known.get_mut(id) {
            *left = left.saturating_sub(1);
        }
    }

    /// The name of the instance profile of a launch, which has to exist, hold a role, and be visible.
    async fn profile(&mut self, request: &Request) -> Result<String, AwsError> {
        let (name, arn) = (request.get("IamInstanceProfile.Name"), request.get("IamInstanceProfile.Arn"));
        let (name, field) = match arn.rsplit_once('/') {
            Some((_, name)) => (name, "arn"),
            None => (name, "name"),
        };
        if name.is_empty() {
            return Ok(String::new());
        }
        let value = if field == "arn" { arn } else { name };
        let text = format!(
            "Value ({value}) for parameter iamInstanceProfile.{field} is invalid. Invalid IAM Instance Profile {field}"
        );
        let invisible = AwsError::client("InvalidParameterValue", text);
        if let Some(left) = self.instances.profiles_to_come.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            return Err(invisible);
        }
        let found = self.moto.look("iam", "GetInstanceProfile", &[("InstanceProfileName", name)]).await;
        let found = found.map_err(|_| invisible)?;
        if found.list("GetInstanceProfileResult/InstanceProfile/Roles").is_empty() {
            let text = format!(
                "IAM Instance Profile \"arn:aws:iam::{}:instance-profile/{name}\" has no associated IAM Roles",
                super::ACCOUNT
            );
            return Err(AwsError::client("InvalidParameterValue", text));
        }
        Ok(name.to_owned())
    }

    /// The zone that a launch asks for; empty if it asks for none.
    pub(super) async fn zone_of(&self, request: &Request) -> Result<String, AwsError> {
        let subnet = match request.get("SubnetId") {
            "" => request.get("NetworkInterface.1.SubnetId"),
            subnet => subnet,
        };
        if subnet.is_empty() {
            return Ok(request.get("Placement.AvailabilityZone").to_owned());
        }
        let found = self.moto.look("ec2", "DescribeSubnets", &[("SubnetId.1", subnet)]).await?;
        Ok(found
            .list("subnetSet")
            .first()
            .map(|item| item.say("availabilityZone").to_owned())
            .unwrap_or_default())
    }

    async fn is_offered(&mut self, kind: &str, zone: &str) -> Result<bool, AwsError> {
        let key = (kind.to_owned(), zone.to_owned());
        if let Some(known) = self.instances.offered.get(&key) {
            return Ok(*known);
        }
        let asked = [
            ("LocationType", "availability-zone"),
            ("Filter.1.Name", "instance-type"),
            ("Filter.1.Value.1", kind),
            ("Filter.2.Name", "location"),
            ("Filter.2.Value.1", zone),
        ];
        let found = self.moto.look("ec2", "DescribeInstanceTypeOfferings", &asked).await?;
        let offered = !found.list("instanceTypeOfferingSet").is_empty();
        self.instances.offered.insert(key, offered);
        Ok(offered)
    }

    /// RunInstances is where AWS counts vCPUs; a dry run is not.
    async fn quota_allows(&self, kind: &str, count: u32) -> Result<(), AwsError> {
        let running = self.instances.known.values().filter(|known| known.shutting_down.is_none());
        let mut wanted: BTreeMap<&str, u32> = BTreeMap::from([(kind, count)]);
        for known in running {
            *wanted.entry(&known.kind).or_default() += 1;
        }
        let mut sum = 0;
        for (kind, count) in wanted {
            sum += count * super::vcpus(kind);
        }
        if sum <= self.options.vcpu_quota {
            return Ok(());
        }
        let text = format!(
            "You have requested more vCPU capacity than your current vCPU limit of {} allows for the instance \
             bucket that the specified instance type belongs to. Please visit \
             http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
            self.options.vcpu_quota
        );
        Err(AwsError::client("VcpuLimitExceeded", text))
    }
}

/// What AWS checks of a launch and moto does not.
fn check_launch(request: &Request) -> Result<(), AwsError> {
    let data = STANDARD.decode(request.get("UserData"));
    let Ok(data) = data else {
        return Err(AwsError::client("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data"));
    };
    if data.len() > MOST_USER_DATA {
        return Err(AwsError::client("InvalidParameterValue", "User data is limited to 16384 bytes"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-=._,:@".contains(c);
    for (key, _) in request.tag_specification("instance") {
        let reserved = [".", "..", "_index"].contains(&key.as_str());
        if request.get("MetadataOptions.InstanceMetadataTags") == "enabled"
            && (reserved || !key.chars().all(plain))
        {
            let text = format!(
                "'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), \
                 and must not be a reserved name ('.', '..', '_index')"
            );
            return Err(AwsError::client("InvalidParameterValue", text));
        }
    }
    Ok(())
}

fn number(request: &Request, name: &str) -> Result<u32, AwsError> {
    let number = request.get(name).parse();
    number.map_err(|_| {
        AwsError::client("MissingParameter", format!("The request must contain the parameter {name}"))
    })
}

fn set_state(item: &mut Element, code: u32, name: &str) {
    let state = vec![Element::text("code", code.to_string()), Element::text("name", name)];
    item.set(Element::of("instanceState", state));
}

/// The ids of the instances in a description.
pub(super) fn ids(document: &Element) -> Vec<String> {
    let reservations = document.list("reservationSet").iter();
    let items = reservations.flat_map(|reservation| reservation.list("instancesSet"));
    items.map(|item| item.say("instanceId").to_owned()).collect()
}
