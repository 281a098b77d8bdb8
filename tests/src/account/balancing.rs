//! Balancers, listeners and target groups as AWS keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::answer::{Answer, AwsError};
use super::data_plane::Health;
use super::options::Agents;
use super::request::Request;
use super::state::State;
use super::xml::Element;

/// What the front knows of balancers and target groups beyond moto.
#[derive(Default)]
pub(super) struct Balancing {
    /// What a balancer or a target group was made of, by ARN.
    made_of: HashMap<String, BTreeMap<String, String>>,
    provisioning: HashMap<String, u32>,
    /// Target groups whose listener was just deleted.
    lingering_use: HashMap<String, u32>,
    /// Looks at a target group's registered targets that are still `initial`.
    initial: HashMap<(String, String), u32>,
    draining: BTreeMap<(String, String), (String, u32)>,
    /// The target groups that listeners and rules use, each with its balancers; `None` when it may have changed.
    used: Option<BTreeMap<String, BTreeSet<String>>>,
    /// What real balancers say of their targets, by target group's ARN and instance.
    pub(super) told: Health,
}

const SERVICE: &str = "elasticloadbalancing";

impl State {
    pub(super) async fn create_load_balancer(&mut self, request: &Request) -> Result<Answer, AwsError> {
        for group in request.list("SecurityGroups.member") {
            self.group_is_visible(group, "CreateLoadBalancer")
                .map_err(|error| AwsError::client("InvalidSecurityGroup", error.message))?;
            let known = self.moto.look("ec2", "DescribeSecurityGroups", &[("GroupId.1", group)]).await;
            known.map_err(|error| AwsError::client("InvalidSecurityGroup", error.message))?;
        }
        let mut zones = BTreeSet::new();
        let subnets = request.list("Subnets.member");
        for subnet in &subnets {
            let found = self.moto.look("ec2", "DescribeSubnets", &[("SubnetId.1", subnet)]).await;
            let found = found.map_err(|_| {
                AwsError::client("SubnetNotFound", format!("The subnet ID '{subnet}' does not exist"))
            })?;
            zones.extend(found.list("subnetSet").iter().map(|item| item.say("availabilityZone").to_owned()));
        }
        if zones.len() < 2 {
            let text = "At least two subnets in two different Availability Zones must be specified";
            return Err(AwsError::client("ValidationError", text));
        }
        if zones.len() < subnets.len() {
            let text = "A load balancer cannot be attached to multiple subnets in the same Availability Zone";
            return Err(AwsError::client("InvalidConfigurationRequest", text));
        }
        let name = request.get("Name").to_owned();
        let found = self.moto.look(SERVICE, "DescribeLoadBalancers", &[]).await?;
        let same = found
            .list("DescribeLoadBalancersResult/LoadBalancers")
            .iter()
            .find(|item| item.say("LoadBalancerName") == name);
        if let Some(same) = same {
            if self.balancing.made_of.get(same.say("LoadBalancerArn")) != Some(&request.parameters) {
                let text = format!(
                    "A load balancer with the same name '{name}' exists, but with different settings"
                );
                return Err(AwsError::client("DuplicateLoadBalancerName", text));
            }
            return Ok(created("CreateLoadBalancer", "LoadBalancers", same.clone()));
        }
        let answer = self.forward(request).await;
        if answer.ok() {
            self.options.had_balancers = true;
            let arn = answer.xml().find("LoadBalancerArn").map(|arn| arn.text.clone()).unwrap_or_default();
            self.balancing.made_of.insert(arn.clone(), request.parameters.clone());
            self.balancing.provisioning.insert(arn, self.options.provisioning);
        }
        Ok(answer)
    }

    pub(super) async fn describe_load_balancers(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let answer = self.forward(request).await;
        if !answer.ok() {
            return Ok(answer);
        }
        let mut document = answer.xml();
        let list = document.at_mut("DescribeLoadBalancersResult/LoadBalancers");
        let items = list.map(|list| &mut list.children).into_iter().flatten();
        let mut names = Vec::new();
        for item in items {
            names.push(item.say("LoadBalancerName").to_owned());
            let left = self.balancing.provisioning.get_mut(item.say("LoadBalancerArn"));
            if let Some(left) = left.filter(|left| **left > 0) {
                *left -= 1;
                item.set(Element::of("State", vec![Element::text("Code", "provisioning")]));
            }
        }
        // moto takes the last one it found for one it does not find.
        for name in request.list("Names.member") {
            if !names.iter().any(|found| found == name) {
                return Err(AwsError::client(
                    "LoadBalancerNotFound",
                    format!("Load balancers '[{name}]' not found"),
                ));
            }
        }
        Ok(answer.with(&document))
    }

    pub(super) async fn delete_load_balancer(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let arn = request.get("LoadBalancerArn");
        let found =
            self.moto.look(SERVICE, "DescribeLoadBalancerAttributes", &[("LoadBalancerArn", arn)]).await;
        let mut attributes =
            found.iter().flat_map(|found| found.list("DescribeLoadBalancerAttributesResult/Attributes"));
        let on =
            |item: &&Element| item.say("Key") == "deletion_protection.enabled" && item.say("Value") == "true";
        if attributes.find(on).is_some() {
            let text =
                format!("Load balancer '{arn}' cannot be deleted because deletion protection is enabled");
            return Err(AwsError::client("OperationNotPermitted", text));
        }
        let found =
            self.moto.look(SERVICE, "DescribeLoadBalancers", &[("LoadBalancerArns.member.1", arn)]).await;
        let groups = found.iter().flat_map(|found| found.list("DescribeLoadBalancersResult/LoadBalancers"));
        let groups =
            groups.flat_map(|item| item.list("SecurityGroups")).map(|member| member.text.clone()).collect();
        let used = self.used().await?.clone();
        let answer = self.forward(request).await;
        if answer.ok() {
            self.interfaces_linger(groups);
            for (group, balancers) in used {
                if balancers.contains(arn) {
                    self.balancing.lingering_use.insert(group, self.options.lingering_use);
                }
            }
            self.balancing.used = None;
        }
        Ok(answer)
    }

    pub(super) async fn create_listener(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let balancer = request.get("LoadBalancerArn");
        let found = self.moto.look(SERVICE, "DescribeListeners", &[("LoadBalancerArn", balancer)]).await?;
        let listeners = found.list("DescribeListenersResult/Listeners");
        if let Some(same) = listeners.iter().find(|item| item.say("Port") == request.get("Port")) {
            if self.balancing.made_of.get(same.say("ListenerArn")) != Some(&request.parameters) {
                let text = "A listener already exists on this port for this load balancer";
                return Err(AwsError::client("DuplicateListener", text));
            }
            return Ok(created("CreateListener", "Listeners", same.clone()));
        }
        self.belongs_to_no_other(request, balancer).await?;
        let answer = self.changes_rules(request).await;
        if let Some(arn) = answer.xml().find("ListenerArn") {
            self.balancing.made_of.insert(arn.text.clone(), request.parameters.clone());
        }
        Ok(answer)
    }

    /// A rule of a listener is made or changed.
    pub(super) async fn change_rule(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let listener = match request.get("ListenerArn") {
            "" => request.get("RuleArn").replacen(":listener-rule/", ":listener/", 1),
            arn => arn.to_owned(),
        };
        // …:listener/app/NAME/ID/…
        let place: Vec<&str> = listener.splitn(5, '/').take(4).collect();
        let balancer = place.join("/").replacen(":listener/", ":loadbalancer/", 1);
        self.belongs_to_no_other(request, &balancer).await?;
        Ok(self.changes_rules(request).await)
    }

    /// A target group belongs to one load balancer.
    async fn belongs_to_no_other(&mut self, request: &Request, balancer: &str) -> Result<(), AwsError> {
        let used = self.used().await?;
        let named = request.parameters.iter().filter(|(key, _)| key.ends_with("TargetGroupArn"));
        for (_, group) in named {
            if used.get(group).is_some_and(|balancers| balancers.iter().any(|other| other != balancer)) {
                let text = format!(
                    "The following target groups cannot be associated with more than one load balancer: {group}"
                );
                return Err(AwsError::client("TargetGroupAssociationLimit", text));
            }
        }
        Ok(())
    }

    /// Listeners or rules change, and with them which target groups are in use.
    pub(super) async fn changes_rules(&mut self, request: &Request) -> Answer {
        self.balancing.used = None;
        self.forward(request).await
    }

    pub(super) async fn create_target_group(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let name = request.get("Name").to_owned();
        let same = self.moto.look(SERVICE, "DescribeTargetGroups", &[("Names.member.1", &name)]).await;
        if let Some(same) =
            same.ok().and_then(|found| found.list("DescribeTargetGroupsResult/TargetGroups").first().cloned())
        {
            if self.balancing.made_of.get(same.say("TargetGroupArn")) != Some(&request.parameters) {
                let text =
                    format!("A target group with the same name '{name}' exists, but with different settings");
                return Err(AwsError::client("DuplicateTargetGroupName", text));
            }
            return Ok(created("CreateTargetGroup", "TargetGroups", same));
        }
        let answer = self.forward(request).await;
        if let Some(arn) = answer.xml().find("TargetGroupArn") {
            self.balancing.made_of.insert(arn.text.clone(), request.parameters.clone());
        }
        Ok(answer)
    }

    pub(super) async fn describe_target_groups(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let answer = self.forward(request).await;
        if !answer.ok() {
            return Ok(answer);
        }
        // moto forgets no balancer, and knows of no rule's.
        let used = self.used().await?.clone();
        let mut document = answer.xml();
        let list = document.at_mut("DescribeTargetGroupsResult/TargetGroups");
        for item in list.map(|list| &mut list.children).into_iter().flatten() {
            let balancers = used.get(item.say("TargetGroupArn")).into_iter().flatten();
            let members = balancers.map(|arn| Element::text("member", arn.as_str())).collect();
            item.set(Element::of("LoadBalancerArns", members));
        }
        Ok(answer.with(&document))
    }

    pub(super) async fn delete_target_group(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let arn = request.get("TargetGroupArn");
        let lingers = self.balancing.lingering_use.get_mut(arn).filter(|left| **left > 0);
        let lingers = lingers.map(|left| *left -= 1).is_some();
        if lingers || self.used().await?.contains_key(arn) {
            let text = format!("Target group '{arn}' is currently in use by a listener or a rule");
            return Err(AwsError::client("ResourceInUse", text));
        }
        let answer = self.forward(request).await;
        // Deleting what is gone succeeds.
        if answer.code() == "TargetGroupNotFound" {
            return Ok(Answer::document(&Element::of(
                "DeleteTargetGroupResponse",
                vec![Element::of("DeleteTargetGroupResult", vec![])],
            )));
        }
        Ok(answer)
    }

    pub(super) async fn describe_target_health(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let group = request.get("TargetGroupArn").to_owned();
        let answer = self.forward(request).await;
        if !answer.ok() {
            return Ok(answer);
        }
        if self.options.agents == Agents::Real {
            return Ok(self.told_health(request, answer));
        }
        let used = self.used().await?.contains_key(&group);
        let mut document = answer.xml();
        let list = document
            .at_mut("DescribeTargetHealthResult/TargetHealthDescriptions")
            .map(|list| &mut list.children);
        let Some(list) = list else {
            return Ok(answer);
        };
        // moto calls everything healthy that it registered, for as long as it knows it.
        let draining: Vec<String> = self.draining_in(&group);
        list.retain(|item| {
            item.say("TargetHealth/State") == "healthy"
                || !draining.contains(&item.say("Target/Id").to_owned())
        });
        for item in list.iter_mut().filter(|item| item.say("TargetHealth/State") == "healthy") {
            let id = item.say("Target/Id").to_owned();
            if let Some((state, reason, description)) = self.health(&group, &id, used) {
                let told = [("State", state), ("Reason", reason), ("Description", description)];
                let told = told.into_iter().map(|(name, text)| Element::text(name, text)).collect();
                item.set(Element::of("TargetHealth", told));
            }
        }
        let targets: Vec<&str> = (1..)
            .map_while(|n| request.parameters.get(&format!("Targets.member.{n}.Id")))
            .map(String::as_str)
            .collect();
        for ((_, id), (port, left)) in
            self.balancing.draining.iter_mut().filter(|((of, _), (_, left))| *of == group && *left > 0)
        {
            if !targets.is_empty() && !targets.contains(&id.as_str()) {
                continue;
            }
            *left -= 1;
            list.push(draining_target(id, port));
        }
        Ok(answer.with(&document))
    }

    fn draining_in(&self, group: &str) -> Vec<String> {
        let draining = self.balancing.draining.iter().filter(|((of, _), (_, left))| of == group && *left > 0);
        draining.map(|((_, id), _)| id.clone()).collect()
    }

    fn health(&mut self, group: &str, id: &str, used: bool) -> Option<(String, String, String)> {
        let told = |state: &str, reason: &str, description: &str| {
            Some((state.to_owned(), reason.to_owned(), description.to_owned()))
        };
        if !used {
            return told(
                "unused",
                "Target.NotInUse",
                "Target group is not configured to receive traffic from the load balancer",
            );
        }
        let initial = self.options.initial;
        let left = self.balancing.initial.entry((group.to_owned(), id.to_owned())).or_insert(initial);
        if *left > 0 {
            *left -= 1;
            return told("initial", "Elb.RegistrationInProgress", "Target registration is in progress");
        }
        match &self.options.agents {
            Agents::Unhealthy(reason, description) => told("unhealthy", reason, description),
            _ => None,
        }
    }

    pub(super) async fn register_targets(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let answer = self.forward(request).await;
        if answer.ok() {
            for (id, _) in targets(request) {
                self.balancing.draining.remove(&(request.get("TargetGroupArn").to_owned(), id));
            }
        }
        Ok(answer)
    }

    pub(super) async fn deregister_targets(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let group = request.get("TargetGroupArn").to_owned();
        let before = self.moto.look(SERVICE, "DescribeTargetHealth", &[("TargetGroupArn", &group)]).await?;
        let registered: Vec<String> = before
            .list("DescribeTargetHealthResult/TargetHealthDescriptions")
            .iter()
            .map(|item| item.say("Target/Id").to_owned())
            .collect();
        let answer = self.forward(request).await;
        for (id, port) in targets(request).into_iter().filter(|(id, _)| registered.contains(id)) {
            let left = self.options.draining;
            self.balancing.draining.insert((group.clone(), id), (port, left));
        }
        // AWS does not mind a target that is not registered.
        if answer.code() == "InvalidTarget" {
            return Ok(Answer::document(&Element::of(
                "DeregisterTargetsResponse",
                vec![Element::of("DeregisterTargetsResult", vec![])],
            )));
        }
        Ok(answer)
    }

    pub(super) async fn describe_tags(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let arns = request.list("ResourceArns.member");
        if arns.len() > 20 {
            return Err(AwsError::client(
                "ValidationError",
                "1 validation error detected: at most 20 resources",
            ));
        }
        Ok(self.forward(request).await)
    }

    /// Everything about an instance that was terminated, with the balancer.
    pub(super) fn target_leaves(&mut self, group: &str, id: &str) {
        let left = self.options.draining;
        self.balancing.draining.insert((group.to_owned(), id.to_owned()), ("80".to_owned(), left));
    }

    /// The target groups that listeners and rules send requests to.
    async fn used(&mut self) -> Result<&BTreeMap<String, BTreeSet<String>>, AwsError> {
        if self.balancing.used.is_none() {
            let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let balancers = self.moto.look(SERVICE, "DescribeLoadBalancers", &[]).await?;
            for balancer in balancers.list("DescribeLoadBalancersResult/LoadBalancers") {
                let balancer = balancer.say("LoadBalancerArn");
                let listeners =
                    self.moto.look(SERVICE, "DescribeListeners", &[("LoadBalancerArn", balancer)]).await?;
                for listener in listeners.list("DescribeListenersResult/Listeners") {
                    let rules = [("ListenerArn", listener.say("ListenerArn"))];
                    let rules = self.moto.look(SERVICE, "DescribeRules", &rules).await?;
                    let mut actions: Vec<&Element> = listener.list("DefaultActions").iter().collect();
                    actions.extend(
                        rules.list("DescribeRulesResult/Rules").iter().flat_map(|rule| rule.list("Actions")),
                    );
                    for action in actions {
                        let weighted = action
                            .list("ForwardConfig/TargetGroups")
                            .iter()
                            .map(|group| group.say("TargetGroupArn"));
                        for group in
                            weighted.chain([action.say("TargetGroupArn")]).filter(|group| !group.is_empty())
                        {
                            used.entry(group.to_owned()).or_default().insert(balancer.to_owned());
                        }
                    }
                }
            }
            self.balancing.used = Some(used);
        }
        Ok(self.balancing.used.as_ref().expect("it was just found"))
    }
}

/// The answer to a creation that was made before with the same settings.
fn created(action: &str, list: &str, mut item: Element) -> Answer {
    item.name = "member".to_owned();
    let list = Element::of(list, vec![item]);
    Answer::document(&Element::of(
        &format!("{action}Response"),
        vec![Element::of(&format!("{action}Result"), vec![list])],
    ))
}

fn targets(request: &Request) -> Vec<(String, String)> {
    let target = |n: u32| {
        let id = request.parameters.get(&format!("Targets.member.{n}.Id"))?;
        Some((id.clone(), request.get(&format!("Targets.member.{n}.Port")).to_owned()))
    };
    (1..).map_while(target).collect()
}

pub(super) fn draining_target(id: &str, port: &str) -> Element {
    let target =
        vec![Element::text("Id", id), Element::text("Port", if port.is_empty() { "80" } else { port })];
    let health = vec![
        Element::text("State", "draining"),
        Element::text("Reason", "Target.DeregistrationInProgress"),
        Element::text("Description", "Target deregistration is in progress"),
    ];
    Element::of("member", vec![Element::of("Target", target), Element::of("TargetHealth", health)])
}
