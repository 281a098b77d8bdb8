//! Changing EC2: security groups, instances, tags. Each of these may be repeated: what a lost answer
//! hid is found and adopted, if it is the fleet's.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_sdk_ec2::types::{
    AttributeBooleanValue, BlockDeviceMapping, EbsBlockDevice, HttpTokensState,
    IamInstanceProfileSpecification, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, IpPermission, IpRange, Placement, ResourceType, Tag, TagSpecification,
    UserIdGroupPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::describe::{filter, instance};
use super::pace::{Pace, VISIBLE_WITHIN, retry_while};
use super::{CallError, Cloud, call, ok_if_absent};
use crate::fleet::names::Names;
use crate::fleet::tagging::{Tags, digest};
use crate::plan::inventory::{IngressRule, Instance, Source};

/// How long an instance that was asked for may take to be shown.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// Instances that are launched in one call.
#[derive(Clone, Debug)]
pub(crate) struct InstanceBatch {
    /// What they are for: `cluster1`.
    pub(crate) group: String,
    /// The group's target group's ARN, which is another after each destroy.
    pub(crate) target_group: String,
    pub(crate) subnet: String,
    pub(crate) zone: String,
    /// What the instances are launched as; others in the same slots are other instances.
    pub(crate) revision: String,
    /// At least one.
    pub(crate) slots: Vec<u16>,
    pub(crate) image: String,
    pub(crate) root_device: Option<String>,
    pub(crate) instance_type: String,
    pub(crate) security_group: String,
    pub(crate) key_pair: Option<String>,
    pub(crate) profile: String,
    /// Cloud-init's.
    pub(crate) user_data: Option<String>,
    /// The instances that were there before: an answer with one of them is that to an earlier launch.
    pub(crate) known: BTreeSet<String>,
}

impl InstanceBatch {
    /// The client token: equal for the same slots of the same group, so that AWS launches them once.
    fn token(&self, slots: &[u16], generation: u32) -> String {
        let Self { target_group, subnet, revision, .. } = self;
        let text = format!("{target_group} {subnet} {revision} {slots:?} {generation}");
        // Two digests: 32 digits are enough to never meet another by chance.
        format!("instance-agent-{}{}", digest(&text), digest(&format!("{text}.")))
    }
}

impl Cloud {
    /// Creates a security group, or finds the one of that name that is the fleet's: its id, and whether it
    /// was there.
    ///
    /// # Errors
    /// A call failed, or the name is someone else's.
    pub(crate) async fn create_security_group(
        &self,
        names: &Names,
        name: &str,
        description: &str,
        vpc: &str,
        tags: Tags,
    ) -> Result<(String, bool), CallError> {
        let tried = format!("create the security group {name}");
        let asked = self.ec2.create_security_group().group_name(name).description(description).vpc_id(vpc);
        let asked = asked.tag_specifications(specification(ResourceType::SecurityGroup, &tags));
        match call(tried, asked.send()).await {
            Ok(made) => Ok((made.group_id.unwrap_or_default(), false)),
            Err(error) if error.is_duplicate() => {
                let filters = [filter("group-name", [name.to_owned()]), filter("vpc-id", [vpc.to_owned()])];
                let own = filter(&format!("tag:{}", instance_contract::tags::FLEET), [names.fleet.clone()]);
                let asked = self.ec2.describe_security_groups().set_filters(Some(filters.into()));
                let asked = asked.filters(own).into_paginator().items().send();
                let found = call(format!("look up the security group {name}"), asked.try_collect()).await?;
                let found = found.into_iter().find_map(|group| group.group_id);
                found.map(|id| (id, true)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets connections in. What is let in already stays.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn authorize_ingress(
        &self,
        group: &str,
        ingress: &BTreeSet<IngressRule>,
        balancer: &str,
        waiting: &dyn Fn(&str),
    ) -> Result<(), CallError> {
        let permissions = permissions(ingress, balancer);
        retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.ec2.authorize_security_group_ingress().group_id(group);
            let asked = asked.set_ip_permissions(Some(permissions.clone()));
            match call(format!("add inbound rules to the security group {group}"), asked.send()).await {
                Err(error) if error.is_duplicate() && permissions.len() == 1 => Ok(()),
                // Some are there and some are not, after an answer that was lost: one by one.
                Err(error) if error.is_duplicate() => {
                    for permission in &permissions {
                        let asked = self.ec2.authorize_security_group_ingress().group_id(group);
                        let asked = asked.ip_permissions(permission.clone()).send();
                        match call(format!("add inbound rules to the security group {group}"), asked).await {
                            Err(error) if !error.is_duplicate() => return Err(error),
                            _ => {}
                        }
                    }
                    Ok(())
                }
                result => result.map(|_| ()),
            }
        })
        .await
    }

    /// Lets connections in no more.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn revoke_ingress(
        &self,
        group: &str,
        ingress: &BTreeSet<IngressRule>,
        balancer: &str,
    ) -> Result<(), CallError> {
        let asked = self.ec2.revoke_security_group_ingress().group_id(group);
        let asked = asked.set_ip_permissions(Some(permissions(ingress, balancer)));
        match call(format!("remove inbound rules from the security group {group}"), asked.send()).await {
            Err(error) if error.code() == "InvalidPermission.NotFound" => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Sets tags.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn tag(&self, resources: &[String], tags: &Tags) -> Result<(), CallError> {
        let asked = self.ec2.create_tags().set_resources(Some(resources.to_vec()));
        let asked = asked.set_tags(Some(ec2_tags(tags)));
        call(format!("tag {}", resources.join(", ")), asked.send()).await.map(|_| ())
    }

    /// Removes tags, whatever their values.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn untag(&self, resources: &[String], keys: &[String]) -> Result<(), CallError> {
        let tags = keys.iter().map(|key| Tag::builder().key(key).build()).collect();
        let asked = self.ec2.delete_tags().set_resources(Some(resources.to_vec())).set_tags(Some(tags));
        call(format!("remove tags of {}", resources.join(", ")), asked.send()).await.map(|_| ())
    }

    /// Launches instances for the batch's slots; `tags` returns the tags for some of them. Idempotent: repeated for the
    /// same slots it launches nothing, as long as those instances live.
    ///
    /// # Errors
    /// A call failed; `InsufficientInstanceCapacity` is one the caller may cure elsewhere.
    pub(crate) async fn run_instances(
        &self,
        batch: &InstanceBatch,
        tags: &dyn Fn(&[u16]) -> Tags,
        waiting: &dyn Fn(&str),
    ) -> Result<Vec<Instance>, CallError> {
        let mut launched = Vec::new();
        let mut slots = batch.slots.clone();
        // Each further generation means that the instances of the one before were terminated; there is no other bound.
        for generation in 0.. {
            let found = self.run_generation(batch, &slots, generation, tags, waiting).await?;
            let (dead, alive): (Vec<_>, Vec<_>) = found.into_iter().partition(Instance::is_dead);
            let living: BTreeSet<u16> = alive.iter().filter_map(Instance::slot).collect();
            launched.extend(alive);
            slots.retain(|slot| !living.contains(slot));
            if slots.is_empty() {
                break;
            }
            let dead: Vec<_> = dead.into_iter().map(|instance| instance.id).collect();
            let dead = if dead.is_empty() {
                "are gone".to_owned()
            } else {
                format!("{} have ended", dead.join(", "))
            };
            waiting(&format!("the instances of an earlier launch {dead}; launching others"));
        }
        Ok(launched)
    }

    /// The instances of one client token: those that this call launched, or an earlier one.
    async fn run_generation(
        &self,
        batch: &InstanceBatch,
        slots: &[u16],
        generation: u32,
        tags: &dyn Fn(&[u16]) -> Tags,
        waiting: &dyn Fn(&str),
    ) -> Result<Vec<Instance>, CallError> {
        let token = batch.token(slots, generation);
        let asked_at = SystemTime::now();
        let answer = retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let tried = format!("launch {} instances of {} in {}", slots.len(), batch.group, batch.zone);
            call(tried, self.run_request(batch, slots, &token, &tags(slots)).send()).await
        })
        .await;
        match answer {
            Ok(answer) => {
                let found: Vec<_> = answer.instances.unwrap_or_default().into_iter().map(instance).collect();
                let is_old = |instance: &Instance| {
                    batch.known.contains(&instance.id) || launched_before(instance, asked_at)
                };
                if found.iter().any(is_old) {
                    // An answer to an earlier call, which may tell how things were then.
                    self.by_token(&token).await
                } else {
                    Ok(found)
                }
            }
            // Launched before with another presigned address, or from an image whose name has moved on.
            Err(error) if error.code() == "IdempotentParameterMismatch" => self.by_token(&token).await,
            Err(error) => Err(error),
        }
    }

    /// What a client token launched, once it is shown; nothing if it has been gone for long.
    async fn by_token(&self, token: &str) -> Result<Vec<Instance>, CallError> {
        let mut pace = Pace::new(LISTED_WITHIN);
        loop {
            let found = self.instances_where(filter("client-token", [token.to_owned()])).await?;
            if !found.is_empty() || !pace.next().await {
                return Ok(found);
            }
        }
    }

    fn run_request(
        &self,
        batch: &InstanceBatch,
        slots: &[u16],
        token: &str,
        tags: &Tags,
    ) -> aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder {
        let count = i32::try_from(slots.len()).unwrap_or(i32::MAX);
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::Required)
            .http_endpoint(InstanceMetadataEndpointState::Enabled)
            .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
            .build();
        let root = batch.root_device.as_ref().map(|device| {
            let disk = EbsBlockDevice::builder().encrypted(true).delete_on_termination(true).build();
            BlockDeviceMapping::builder().device_name(device).ebs(disk).build()
        });
        let request = self
            .ec2
            .run_instances()
            .client_token(token)
            .image_id(&batch.image)
            .instance_type(batch.instance_type.as_str().into())
            .min_count(count)
            .max_count(count)
            .subnet_id(&batch.subnet)
            .placement(Placement::builder().availability_zone(&batch.zone).build())
            .security_group_ids(&batch.security_group)
            .set_key_name(batch.key_pair.clone())
            .iam_instance_profile(IamInstanceProfileSpecification::builder().name(&batch.profile).build())
            .metadata_options(metadata)
            .set_block_device_mappings(root.map(|root| vec![root]))
            .set_user_data(batch.user_data.as_ref().map(|text| STANDARD.encode(text)));
        let kinds = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];
        kinds.into_iter().fold(request, |request, kind| request.tag_specifications(specification(kind, tags)))
    }

    /// Lifts an instance's protection from termination.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn lift_termination_protection(&self, id: &str) -> Result<(), CallError> {
        let off = AttributeBooleanValue::builder().value(false).build();
        let asked = self.ec2.modify_instance_attribute().instance_id(id).disable_api_termination(off);
        call(format!("remove the termination protection of {id}"), asked.send()).await.map(|_| ())
    }

    /// Terminates instances. One that is gone is no failure.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn terminate(&self, ids: &[String]) -> Result<(), CallError> {
        let asked = self.ec2.terminate_instances().set_instance_ids(Some(ids.to_vec()));
        match call(format!("terminate {}", ids.join(", ")), asked.send()).await {
            // One unknown id refuses them all: one by one then.
            Err(error) if error.code() == "InvalidInstanceID.NotFound" && ids.len() > 1 => {
                for id in ids {
                    Box::pin(self.terminate(std::slice::from_ref(id))).await?;
                }
                Ok(())
            }
            Err(error) if error.code() == "InvalidInstanceID.NotFound" => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Deletes a security group. One that is gone is no failure.
    ///
    /// # Errors
    /// The call failed; [`CallError::is_in_use`] while anything uses it.
    pub(crate) async fn delete_security_group(&self, id: &str) -> Result<(), CallError> {
        let asked = self.ec2.delete_security_group().group_id(id);
        ok_if_absent(call(format!("delete the security group {id}"), asked.send()).await)
    }

    /// The end of an instance's console output, where there is any yet.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn console(&self, instance: &str) -> Result<Option<String>, CallError> {
        let ask = async |latest: bool| {
            let asked =
                self.ec2.get_console_output().instance_id(instance).set_latest(latest.then_some(true));
            call(format!("read the console of {instance}"), asked.send()).await
        };
        let answer = match ask(true).await {
            // Only newer types show the latest; the others show what was there some minutes ago.
            Err(error) if error.code() == "UnsupportedOperation" => ask(false).await?,
            result => result?,
        };
        let bytes = answer.output.and_then(|text| STANDARD.decode(text).ok());
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty()))
    }
}

/// Whether an instance was launched before this was asked for, with some room for the clocks.
fn launched_before(instance: &Instance, asked: SystemTime) -> bool {
    let asked = asked.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    instance.is_dead() || instance.launched + 30 < i64::try_from(asked).unwrap_or(i64::MAX)
}

fn ec2_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn specification(kind: ResourceType, tags: &Tags) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(ec2_tags(tags))).build()
}

fn permissions(ingress: &BTreeSet<IngressRule>, balancer: &str) -> Vec<IpPermission> {
    let permission = |opening: &IngressRule| {
        let base = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(opening.first.into())
            .to_port(opening.last.into());
        match &opening.from {
            Source::Cidr(cidr) => base.ip_ranges(IpRange::builder().cidr_ip(cidr).build()),
            Source::Balancer => {
                base.user_id_group_pairs(UserIdGroupPair::builder().group_id(balancer).build())
            }
            Source::Other(_) => return None,
        }
        .build()
        .into()
    };
    ingress.iter().filter_map(permission).collect()
}
