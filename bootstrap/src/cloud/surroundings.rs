//! Looking at the account and region around a fleet, before anything is created.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types as ec2;

use super::describe::filter;
use super::image::ImageError;
use super::{CallError, Cloud, call};
use crate::fleet::Fleet;
use crate::plan::surroundings::{Image, InstanceType, Subnet, Surroundings, Vcpus, is_standard};

/// Running On-Demand Standard instances, in vCPU.
const QUOTA: &str = "L-1216C47A";

impl Cloud {
    /// Everything a launch of this fleet has to know of the account, but for whose it is.
    ///
    /// # Errors
    /// A call failed; what AWS does not have is among the problems instead.
    pub(crate) async fn surroundings(&self, fleet: &Fleet) -> Result<Surroundings, CallError> {
        let mut around = Surroundings::default();
        let (subnets, typed, offered, key_pair, used, quota) = tokio::try_join!(
            self.default_subnets(),
            self.types_and_images(fleet),
            self.offered(fleet),
            self.key_pair_problem(fleet),
            self.vcpus_in_use(),
            async { Ok(self.quota().await) },
        )?;
        around.subnets = subnets;
        (around.types, around.images) = typed.found;
        around.problems.extend(typed.problems);
        around.problems.extend(key_pair);
        around.offered = offered;
        around.vcpus = Vcpus { used, quota };
        Ok(around)
    }

    /// The account, and the partition the region is in.
    pub(crate) async fn identity(&self) -> Result<(String, String), CallError> {
        let answer =
            call("look up the account of these credentials", self.sts.get_caller_identity().send()).await?;
        let partition = answer.arn.as_deref().and_then(|arn| arn.split(':').nth(1)).unwrap_or("aws");
        Ok((answer.account.unwrap_or_default(), partition.to_owned()))
    }

    /// The regions that the account has enabled, sorted.
    pub(crate) async fn regions(&self) -> Result<Vec<String>, CallError> {
        let answer = call("list the regions", self.ec2.describe_regions().send()).await?;
        let regions = answer.regions.unwrap_or_default().into_iter();
        let mut names: Vec<_> = regions.filter_map(|region| region.region_name).collect();
        names.sort();
        Ok(names)
    }

    async fn default_subnets(&self) -> Result<BTreeMap<String, Subnet>, CallError> {
        // Of all zones: a balancer that moves to others stays in its own for a while.
        let default = filter("default-for-az", ["true".to_owned()]);
        let asked = self.ec2.describe_subnets().filters(default).into_paginator().items().send();
        let found = call("list the default VPC's subnets", asked.try_collect()).await?;
        let subnet = |subnet: ec2::Subnet| {
            let zone = subnet.availability_zone?;
            let public_addresses = subnet.map_public_ip_on_launch.unwrap_or_default();
            Some((zone, Subnet { id: subnet.subnet_id?, vpc: subnet.vpc_id?, public_addresses }))
        };
        Ok(found.into_iter().filter_map(subnet).collect())
    }

    async fn types_and_images(&self, fleet: &Fleet) -> Result<TypesAndImages, CallError> {
        let mut typed = TypesAndImages::default();
        // An image that is given by its id is looked at together with the types.
        if fleet.image.starts_with("ami-") {
            let (types, image) = tokio::join!(self.types(fleet), self.image(&fleet.image, ""));
            typed.found.0 = types?;
            typed.add(image)?;
            return Ok(typed);
        }
        typed.found.0 = self.types(fleet).await?;
        let wanted = typed.found.0.values().filter_map(|found| found.architecture.clone());
        for architecture in wanted.collect::<BTreeSet<_>>() {
            typed.add(self.image(&fleet.image, &architecture).await)?;
        }
        Ok(typed)
    }

    async fn types(&self, fleet: &Fleet) -> Result<BTreeMap<String, InstanceType>, CallError> {
        // As a filter: a type that is not known would make a call by name fail as a whole.
        let asked = self.ec2.describe_instance_types().filters(filter("instance-type", types(fleet)));
        let found =
            call("look up the instance types", asked.into_paginator().items().send().try_collect()).await?;
        let facts = |found: ec2::InstanceTypeInfo| {
            let vcpus = found.v_cpu_info.and_then(|info| info.default_v_cpus).unwrap_or_default();
            let named =
                found.processor_info.and_then(|info| info.supported_architectures).unwrap_or_default();
            let facts = InstanceType {
                vcpus: u32::try_from(vcpus).unwrap_or_default(),
                architecture: named
                    .iter()
                    .map(|name| name.as_str().to_owned())
                    .find(|name| matches!(name.as_str(), "x86_64" | "arm64")),
            };
            Some((found.instance_type?.as_str().to_owned(), facts))
        };
        Ok(found.into_iter().filter_map(facts).collect())
    }

    async fn offered(&self, fleet: &Fleet) -> Result<BTreeSet<(String, String)>, CallError> {
        let filters =
            [filter("instance-type", types(fleet)), filter("location", fleet.zones.iter().cloned())];
        let asked = self
            .ec2
            .describe_instance_type_offerings()
            .location_type(ec2::LocationType::AvailabilityZone)
            .set_filters(Some(filters.into()));
        let asked = asked.into_paginator().items().send();
        let found =
            call("look up in which zones the instance types are offered", asked.try_collect()).await?;
        let pair = |offering: ec2::InstanceTypeOffering| {
            Some((offering.instance_type?.as_str().to_owned(), offering.location?))
        };
        Ok(found.into_iter().filter_map(pair).collect())
    }

    async fn key_pair_problem(&self, fleet: &Fleet) -> Result<Option<String>, CallError> {
        let Some(name) = &fleet.key_pair else {
            return Ok(None);
        };
        let asked = self.ec2.describe_key_pairs().key_names(name);
        match call(format!("look up the key pair {name}"), asked.send()).await {
            Err(error) if error.is_not_found() => Ok(Some(format!(
                "there is no key pair {name} in {}; correct key-pair, or import yours (`aws ec2 import-key-pair`)",
                self.region
            ))),
            result => result.map(|_| None),
        }
    }

    /// Processors of the standard on-demand instances that run now.
    async fn vcpus_in_use(&self) -> Result<u32, CallError> {
        let running = filter("instance-state-name", ["pending", "running"].map(str::to_owned));
        let asked = self.ec2.describe_instances().filters(running).into_paginator().items().send();
        let found = call("list the running instances", asked.try_collect()).await?;
        let instances = found.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default());
        let on_demand = instances.filter(|found| {
            found.instance_lifecycle.is_none()
                && found.instance_type.as_ref().is_some_and(|name| is_standard(name.as_str()))
        });
        let vcpus = on_demand.filter_map(|found| {
            let options = found.cpu_options?;
            u32::try_from(options.core_count? * options.threads_per_core?).ok()
        });
        Ok(vcpus.sum())
    }

    /// The quota, where it may be asked for.
    async fn quota(&self) -> Option<u32> {
        let asked = self.quotas.get_service_quota().service_code("ec2").quota_code(QUOTA);
        let answer = call("look up the vCPU quota", asked.send()).await.ok()?;
        let value = answer.quota?.value?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quota is a small whole number"
        )]
        Some(value as u32)
    }
}

/// Types and images that were found, and what was not.
#[derive(Default)]
struct TypesAndImages {
    found: (BTreeMap<String, InstanceType>, BTreeMap<String, Image>),
    problems: Vec<String>,
}

impl TypesAndImages {
    fn add(&mut self, image: Result<Image, ImageError>) -> Result<(), CallError> {
        match image {
            Ok(image) => {
                self.found.1.insert(image.architecture.clone(), image);
            }
            Err(ImageError::Call(error)) => return Err(error),
            Err(error) => self.problems.push(error.to_string()),
        }
        Ok(())
    }
}

fn types(fleet: &Fleet) -> BTreeSet<String> {
    fleet.groups.iter().map(|group| group.instance_type.clone()).collect()
}
