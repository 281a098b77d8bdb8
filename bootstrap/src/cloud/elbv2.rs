//! Changing ELBv2: target groups, the balancer, its listener and rules. Each of these may be
//! repeated: AWS answers the same request for the same name with what is there.

use std::time::Duration;

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, IpAddressType, LoadBalancerAttribute,
    LoadBalancerSchemeEnum, LoadBalancerTypeEnum, Matcher, PathPatternConditionConfig, ProtocolEnum,
    RuleCondition, Tag, TargetGroupAttribute, TargetGroupTuple, TargetTypeEnum,
};
use instance_contract::TargetHealthState;

use super::describe::{DEREGISTRATION_DELAY, balancer, shown};
use super::pace::{VISIBLE_WITHIN, retry_while};
use super::{CallError, Cloud, call, none_if_absent, ok_if_absent};
use crate::fleet::tagging::Tags;
use crate::fleet::{Desired, Fleet, Group};
use crate::plan::inventory::Balancer;

/// The attribute of a balancer that protects it from deletion.
const DELETION_PROTECTION: &str = "deletion_protection.enabled";

/// How a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetHealth {
    pub(crate) id: String,
    /// In ELBv2's words.
    pub(crate) state: TargetHealthState,
    /// ELBv2's reason code.
    pub(crate) reason: Option<String>,
    /// ELBv2's description of the reason.
    pub(crate) description: Option<String>,
}

impl TargetHealth {
    /// Whether it passes its health checks.
    pub(crate) fn is_healthy(&self) -> bool {
        self.state == TargetHealthState::Healthy
    }
}

impl Cloud {
    /// Creates a group's target group and answers its ARN.
    ///
    /// # Errors
    /// The call failed, or the name is taken by one with other settings.
    pub(crate) async fn create_target_group(
        &self,
        desired: &Desired,
        group: &Group,
        vpc: &str,
    ) -> Result<String, CallError> {
        let fleet = &desired.fleet;
        let name = fleet.target_group(group);
        let check = &fleet.health_check;
        let asked = self
            .elbv2
            .create_target_group()
            .name(&name)
            .protocol(ProtocolEnum::Http)
            .port(fleet.port.into())
            .vpc_id(vpc)
            .target_type(TargetTypeEnum::Instance)
            .health_check_protocol(ProtocolEnum::Http)
            .health_check_path(&check.path)
            .health_check_interval_seconds(seconds(check.interval))
            .health_check_timeout_seconds(seconds(check.timeout))
            .healthy_threshold_count(count(check.healthy))
            .unhealthy_threshold_count(count(check.unhealthy))
            .matcher(Matcher::builder().http_code("200").build())
            .set_tags(Some(tags(&desired.tags)));
        let made = match call(format!("create the target group {name}"), asked.send()).await {
            Ok(made) => made.target_groups.unwrap_or_default(),
            Err(error) if error.is_duplicate() => self.own_target_group(&name, &fleet.name, error).await?,
            Err(error) => return Err(error),
        };
        Ok(made.into_iter().find_map(|group| group.target_group_arn).unwrap_or_default())
    }

    /// The target group of that name, if it is the fleet's; else the failure that led here.
    async fn own_target_group(
        &self,
        name: &str,
        fleet: &str,
        error: CallError,
    ) -> Result<Vec<aws_sdk_elasticloadbalancingv2::types::TargetGroup>, CallError> {
        let asked = self.elbv2.describe_target_groups().names(name);
        let found = call(format!("look up the target group {name}"), asked.send()).await?;
        let found = found.target_groups.unwrap_or_default();
        let arns: Vec<_> = found.iter().filter_map(|group| group.target_group_arn.clone()).collect();
        self.check_ownership(&arns, fleet, error).await?;
        Ok(found)
    }

    /// # Errors
    /// `error`, unless all of them carry the fleet's tag.
    async fn check_ownership(&self, arns: &[String], fleet: &str, error: CallError) -> Result<(), CallError> {
        let tags = self.load_balancing_tags(arns).await?;
        let ours = |arn: &String| {
            tags.get(arn)
                .and_then(|tags| tags.get(instance_contract::tags::FLEET))
                .is_some_and(|found| found == fleet)
        };
        if arns.is_empty() || !arns.iter().all(ours) {
            return Err(error);
        }
        Ok(())
    }

    /// Sets tags on the balancer and target groups.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn tag_load_balancing(&self, arns: &[String], set: &Tags) -> Result<(), CallError> {
        // AWS's limit for one call.
        for arns in arns.chunks(20) {
            let asked = self.elbv2.add_tags().set_resource_arns(Some(arns.to_vec()));
            call("tag load balancing resources", asked.set_tags(Some(tags(set))).send()).await?;
        }
        Ok(())
    }

    /// Sets how a target group's targets are probed.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn set_health_check(&self, arn: &str, fleet: &Fleet) -> Result<(), CallError> {
        let check = &fleet.health_check;
        let asked = self
            .elbv2
            .modify_target_group()
            .target_group_arn(arn)
            .health_check_path(&check.path)
            .health_check_interval_seconds(seconds(check.interval))
            .health_check_timeout_seconds(seconds(check.timeout))
            .healthy_threshold_count(count(check.healthy))
            .unhealthy_threshold_count(count(check.unhealthy));
        call(format!("set the health check of {arn}"), asked.send()).await.map(|_| ())
    }

    /// Sets how long deregistered targets drain.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn set_delay(
        &self,
        arn: &str,
        delay: Duration,
        waiting: &dyn Fn(&str),
    ) -> Result<(), CallError> {
        let delay = delay.as_secs().to_string();
        let attribute = TargetGroupAttribute::builder().key(DEREGISTRATION_DELAY).value(delay).build();
        retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.elbv2.modify_target_group_attributes().target_group_arn(arn);
            let asked = asked.attributes(attribute.clone()).send();
            call(format!("set the deregistration delay of {arn}"), asked).await.map(|_| ())
        })
        .await
    }

    /// Creates the balancer.
    ///
    /// # Errors
    /// The call failed, or the name is someone else's.
    pub(crate) async fn create_balancer(
        &self,
        desired: &Desired,
        subnets: &[String],
        security_group: &str,
        waiting: &dyn Fn(&str),
    ) -> Result<Balancer, CallError> {
        let fleet = &desired.fleet;
        let tags = tags(&desired.tags);
        let made = retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self
                .elbv2
                .create_load_balancer()
                .name(&fleet.name)
                .r#type(LoadBalancerTypeEnum::Application)
                .scheme(LoadBalancerSchemeEnum::InternetFacing)
                .ip_address_type(IpAddressType::Ipv4)
                .set_subnets(Some(subnets.to_vec()))
                .security_groups(security_group)
                .set_tags(Some(tags.clone()));
            call(format!("create the load balancer {}", fleet.name), asked.send()).await
        })
        .await;
        let found = match made {
            Ok(made) => made.load_balancers.unwrap_or_default(),
            Err(error) if error.is_duplicate() => {
                let asked = self.elbv2.describe_load_balancers().names(&fleet.name);
                let found = call(format!("look up the load balancer {}", fleet.name), asked.send()).await?;
                let found = found.load_balancers.unwrap_or_default();
                let arns: Vec<_> = found.iter().filter_map(|found| found.load_balancer_arn.clone()).collect();
                self.check_ownership(&arns, &fleet.name, error).await?;
                found
            }
            Err(error) => return Err(error),
        };
        let nothing = || aws_sdk_elasticloadbalancingv2::types::LoadBalancer::builder().build();
        Ok(balancer(found.into_iter().next().unwrap_or_else(nothing)))
    }

    /// Sets the zones the balancer is in.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn set_subnets(&self, arn: &str, subnets: &[String]) -> Result<(), CallError> {
        let asked = self.elbv2.set_subnets().load_balancer_arn(arn).set_subnets(Some(subnets.to_vec()));
        call("set the load balancer's zones", asked.send()).await.map(|_| ())
    }

    /// Creates the listener, whose default action shares out among target groups by weight.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn create_listener(
        &self,
        balancer: &str,
        desired: &Desired,
        weights: &[(String, u16)],
        waiting: &dyn Fn(&str),
    ) -> Result<String, CallError> {
        let tags = tags(&desired.tags);
        let made = retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self
                .elbv2
                .create_listener()
                .load_balancer_arn(balancer)
                .protocol(ProtocolEnum::Http)
                .port(desired.fleet.port.into())
                .default_actions(forward(weights))
                .set_tags(Some(tags.clone()));
            call(format!("create the listener on port {}", desired.fleet.port), asked.send()).await
        })
        .await;
        let found = match made {
            Ok(made) => made.listeners.unwrap_or_default(),
            // The balancer is ours, so its listener is.
            Err(error) if error.is_duplicate() => {
                let asked = self.elbv2.describe_listeners().load_balancer_arn(balancer);
                call("look up the listener", asked.send()).await?.listeners.unwrap_or_default()
            }
            Err(error) => return Err(error),
        };
        Ok(found.into_iter().find_map(|listener| listener.listener_arn).unwrap_or_default())
    }

    /// Sets the listener's default action.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn set_default(
        &self,
        listener: &str,
        weights: &[(String, u16)],
    ) -> Result<(), CallError> {
        let asked = self.elbv2.modify_listener().listener_arn(listener).default_actions(forward(weights));
        call("set the listener's default action", asked.send()).await.map(|_| ())
    }

    /// Creates the rule that sends a cluster's paths to its target group.
    ///
    /// # Errors
    /// The call failed, or the priority is taken by another rule.
    pub(crate) async fn create_rule(
        &self,
        listener: &str,
        desired: &Desired,
        group: &Group,
        priority: u32,
        target_group: &str,
        waiting: &dyn Fn(&str),
    ) -> Result<(), CallError> {
        let paths = group.rule_paths();
        let config = PathPatternConditionConfig::builder().set_values(Some(paths.clone())).build();
        let condition = RuleCondition::builder().field("path-pattern").path_pattern_config(config).build();
        let tags = tags(&desired.tags);
        let made = retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self
                .elbv2
                .create_rule()
                .listener_arn(listener)
                .priority(i32::try_from(priority).unwrap_or(i32::MAX))
                .conditions(condition.clone())
                .actions(forward(&[(target_group.to_owned(), 1)]))
                .set_tags(Some(tags.clone()));
            call(format!("create the rule for {}", paths.join(" and ")), asked.send()).await
        })
        .await;
        match made {
            Err(error) if error.is_duplicate() => {
                let rules = self.rules(listener).await?;
                let same = rules.iter().any(|rule| {
                    rule.paths.iter().eq(&std::collections::BTreeSet::from_iter(paths.clone()))
                        && rule.target_group.as_deref() == Some(target_group)
                });
                if same { Ok(()) } else { Err(error) }
            }
            result => result.map(|_| ()),
        }
    }

    /// Deletes a rule. One that is gone is no failure.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn delete_rule(&self, arn: &str) -> Result<(), CallError> {
        ok_if_absent(call("delete a rule", self.elbv2.delete_rule().rule_arn(arn).send()).await)
    }

    /// Whether the balancer is protected from deletion. One that is gone is not.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn is_protected(&self, balancer: &str) -> Result<bool, CallError> {
        let asked = self.elbv2.describe_load_balancer_attributes().load_balancer_arn(balancer);
        let answer = call("read the load balancer's attributes", asked.send()).await;
        let attributes = none_if_absent(answer)?.and_then(|answer| answer.attributes).unwrap_or_default();
        let protection = attributes.iter().find(|attribute| attribute.key() == Some(DELETION_PROTECTION));
        Ok(protection.and_then(|attribute| attribute.value()) == Some("true"))
    }

    /// Lifts the balancer's protection from deletion.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn lift_deletion_protection(&self, balancer: &str) -> Result<(), CallError> {
        let off = LoadBalancerAttribute::builder().key(DELETION_PROTECTION).value("false").build();
        let asked = self.elbv2.modify_load_balancer_attributes().load_balancer_arn(balancer).attributes(off);
        ok_if_absent(call("remove the load balancer's deletion protection", asked.send()).await)
    }

    /// Deletes the balancer with its listeners and rules. One that is gone is no failure.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn delete_balancer(&self, arn: &str) -> Result<(), CallError> {
        let asked = self.elbv2.delete_load_balancer().load_balancer_arn(arn);
        ok_if_absent(call("delete the load balancer", asked.send()).await)
    }

    /// Deletes a target group. One that is gone is no failure.
    ///
    /// # Errors
    /// The call failed; [`CallError::is_in_use`] while a listener uses it.
    pub(crate) async fn delete_target_group(&self, arn: &str, name: &str) -> Result<(), CallError> {
        let asked = self.elbv2.delete_target_group().target_group_arn(arn);
        ok_if_absent(call(format!("delete the target group {name}"), asked.send()).await)
    }

    /// How the targets of a group are.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn target_health(&self, arn: &str) -> Result<Vec<TargetHealth>, CallError> {
        let asked = self.elbv2.describe_target_health().target_group_arn(arn);
        let answer = call("read the targets' health", asked.send()).await?;
        let descriptions = answer.target_health_descriptions.unwrap_or_default().into_iter();
        Ok(descriptions
            .map(|description| {
                let health = description.target_health;
                TargetHealth {
                    id: description.target.and_then(|target| target.id).unwrap_or_default(),
                    state: health
                        .as_ref()
                        .and_then(|health| health.state.as_ref())
                        .map_or(TargetHealthState::Unavailable, |state| state.as_str().into()),
                    reason: health
                        .as_ref()
                        .and_then(|health| health.reason.as_ref())
                        .map(|reason| shown(reason.as_str())),
                    description: health.and_then(|health| health.description).map(|text| shown(&text)),
                }
            })
            .collect())
    }
}

fn forward(weights: &[(String, u16)]) -> Action {
    let groups = weights.iter().map(|(arn, weight)| {
        TargetGroupTuple::builder().target_group_arn(arn).weight((*weight).into()).build()
    });
    let config = ForwardActionConfig::builder().set_target_groups(Some(groups.collect())).build();
    Action::builder().r#type(ActionTypeEnum::Forward).forward_config(config).build()
}

fn tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
