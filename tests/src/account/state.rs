//! The account's rules: which calls need more than moto.

use std::collections::BTreeMap;

use super::agents::Agents;
use super::answer::{Answer, AwsError};
use super::authorization::Need;
use super::balancing::Balancing;
use super::groups::Groups;
use super::instances::Instances;
use super::options::Options;
use super::paging::Page;
use super::request::Request;
use super::roles::Roles;
use super::upstream::Upstream;
use super::{IMAGE, IMAGE_PARAMETER, NEWER_IMAGE};

/// What is known of the account beyond moto.
pub(super) struct State {
    pub(super) moto: Upstream,
    pub(super) options: Options,
    pub(super) instances: Instances,
    pub(super) groups: Groups,
    pub(super) roles: Roles,
    pub(super) balancing: Balancing,
    pub(super) agents: Agents,
    /// What real instances have written to their consoles.
    pub(super) consoles: BTreeMap<String, String>,
    /// What was needed of the caller's policy, each once.
    pub(super) needs: Vec<Need>,
}

/// Most tags of one resource.
const MOST_TAGS: usize = 50;

impl State {
    pub(super) fn new(moto: Upstream, options: Options) -> Self {
        Self {
            moto,
            options,
            instances: Instances::default(),
            groups: Groups::default(),
            roles: Roles::default(),
            balancing: Balancing::default(),
            agents: Agents::default(),
            consoles: BTreeMap::new(),
            needs: Vec::new(),
        }
    }

    /// Answers a call.
    pub(super) async fn answer(&mut self, request: &Request) -> Answer {
        self.instances_age();
        self.agents_try().await;
        let answer = match self.obey(request).await {
            Ok(answer) => answer,
            Err(error) => error.answer(&request.service),
        };
        self.agents_try().await;
        answer
    }

    async fn obey(&mut self, request: &Request) -> Result<Answer, AwsError> {
        check_tags(request)?;
        self.authorize(request).await?;
        let mut asked = request.clone();
        let page = Page::take(&mut asked, self.options.page)?;
        if self.options.transparent && asked.own {
            // moto is to see who asks; what is asked is then asked by the front.
            let seen = self.as_caller(request).await;
            if seen.status == 403 {
                return Ok(seen);
            }
        }
        let answer = self.rule(&asked).await?;
        Ok(match page {
            Some(page) => page.cut(&asked, answer),
            None => answer,
        })
    }

    async fn rule(&mut self, request: &Request) -> Result<Answer, AwsError> {
        match (request.service.as_str(), request.action.as_str()) {
            ("ec2", "RunInstances") => self.run_instances(request).await,
            ("ec2", "DescribeInstances") => self.describe_instances(request).await,
            ("ec2", "GetConsoleOutput") => Ok(self.console(request).await),
            ("ec2", "TerminateInstances") => self.terminate_instances(request).await,
            ("ec2", "CreateSecurityGroup") => self.create_security_group(request).await,
            ("ec2", "DescribeSecurityGroups") => self.describe_security_groups(request).await,
            ("ec2", "DeleteSecurityGroup") => self.delete_security_group(request).await,
            ("ec2", action)
                if action.ends_with("SecurityGroupIngress") || action.ends_with("SecurityGroupEgress") =>
            {
                self.use_security_group(request).await
            }
            ("iam", "CreateRole") => self.create_role(request).await,
            ("iam", "CreateInstanceProfile") => self.create_instance_profile(request).await,
            ("iam", _) => self.use_role(request).await,
            ("elasticloadbalancing", "CreateLoadBalancer") => self.create_load_balancer(request).await,
            ("elasticloadbalancing", "DescribeLoadBalancers") => self.describe_load_balancers(request).await,
            ("elasticloadbalancing", "DeleteLoadBalancer") => self.delete_load_balancer(request).await,
            ("elasticloadbalancing", "CreateListener") => self.create_listener(request).await,
            ("elasticloadbalancing", "CreateRule" | "ModifyRule" | "ModifyListener") => {
                self.change_rule(request).await
            }
            ("elasticloadbalancing", "DeleteRule" | "DeleteListener") => {
                Ok(self.changes_rules(request).await)
            }
            ("elasticloadbalancing", "CreateTargetGroup") => self.create_target_group(request).await,
            ("elasticloadbalancing", "DescribeTargetGroups") => self.describe_target_groups(request).await,
            ("elasticloadbalancing", "DeleteTargetGroup") => self.delete_target_group(request).await,
            ("elasticloadbalancing", "DescribeTargetHealth") => self.describe_target_health(request).await,
            ("elasticloadbalancing", "RegisterTargets") => self.register_targets(request).await,
            ("elasticloadbalancing", "DeregisterTargets") => self.deregister_targets(request).await,
            ("elasticloadbalancing", "DescribeTags") => self.describe_tags(request).await,
            ("s3", "ListObjectVersions") => Ok(self.list_versions(request).await),
            ("ssm", "GetParameter") if request.get("Name").starts_with("/aws/service/") => {
                public_parameter(request)
            }
            ("servicequotas", "GetServiceQuota") => self.quota(request),
            _ => Ok(self.forward(request).await),
        }
    }

    /// Asks moto what was asked.
    pub(super) async fn forward(&self, request: &Request) -> Answer {
        if self.options.transparent && !request.own {
            return self.as_caller(request).await;
        }
        self.moto.send(request).await
    }

    /// Asks moto in other words; where moto checks who asks, the words that were used go first.
    pub(super) async fn forward_changed(&self, request: &Request, mut changed: Request) -> Answer {
        if self.options.transparent && !request.own {
            let seen = self.as_caller(request).await;
            if seen.status == 403 || (seen.ok() && !request.is_read()) {
                return seen;
            }
        }
        changed.rewritten();
        self.moto.send(&changed).await
    }

    /// Asks moto as the caller, while it checks keys and policies. The front's own calls are not signed.
    async fn as_caller(&self, request: &Request) -> Answer {
        self.moto.control("reset-auth", "0").await;
        let answer = self.moto.send(request).await;
        self.moto.control("reset-auth", "inf").await;
        answer
    }

    async fn list_versions(&self, request: &Request) -> Answer {
        let Some(page) = self.options.page.filter(|_| !self.options.transparent) else {
            return self.forward(request).await;
        };
        let mut changed = request.clone();
        let asked: usize = request.get("max-keys").parse().unwrap_or(1000);
        changed.parameters.insert("max-keys".to_owned(), asked.min(page).to_string());
        changed.rewritten();
        self.moto.send(&changed).await
    }

    fn quota(&self, request: &Request) -> Result<Answer, AwsError> {
        if (request.get("ServiceCode"), request.get("QuotaCode")) != ("ec2", "L-1216C47A") {
            return Err(AwsError::client(
                "NoSuchResourceException",
                "The request failed because the specified quota does not exist.",
            ));
        }
        let quota = serde_json::json!({ "Quota": {
            "ServiceCode": "ec2", "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaCode": "L-1216C47A", "QuotaName": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
            "Value": f64::from(self.options.vcpu_quota), "Unit": "None", "Adjustable": true, "GlobalQuota": false,
        } });
        Ok(Answer::new(200, "application/x-amz-json-1.1", quota.to_string()))
    }
}

/// The public parameters: moto has none of Canonical's.
fn public_parameter(request: &Request) -> Result<Answer, AwsError> {
    let name = request.get("Name");
    if name != IMAGE_PARAMETER {
        return Err(AwsError::client("ParameterNotFound", format!("{name} not found")));
    }
    assert_ne!(IMAGE, NEWER_IMAGE);
    let parameter = serde_json::json!({ "Parameter": {
        "Name": name, "Type": "String", "DataType": "aws:ec2:image", "Value": NEWER_IMAGE, "Version": 7,
        "LastModifiedDate": 1.7e9, "ARN": format!("arn:aws:ssm:{}::parameter{name}", request.region),
    } });
    Ok(Answer::new(200, "application/x-amz-json-1.1", parameter.to_string()))
}

/// Tags as AWS takes them: how many, how long, and outside EC2 which characters.
fn check_tags(request: &Request) -> Result<(), AwsError> {
    let lists: Vec<Vec<(String, String)>> = if request.service == "ec2" {
        let of_type = ["instance", "volume", "security-group", "security-group-rule", "network-interface"];
        let specified = of_type.into_iter().map(|resource| request.tag_specification(resource));
        specified.chain([request.pairs("Tag")]).collect()
    } else {
        vec![request.pairs("Tags.member")]
    };
    for tags in lists {
        if tags.len() > MOST_TAGS {
            return Err(AwsError::client("TagLimitExceeded", "You have reached the maximum number of tags"));
        }
        for (key, value) in tags {
            let plain = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
            let strict = request.service != "ec2";
            let (length, characters) = (key.chars().count(), format!("{key}{value}"));
            if length == 0
                || length > 128
                || value.chars().count() > 256
                || (strict && !characters.chars().all(plain))
            {
                let code = if request.service == "ec2" { "InvalidParameterValue" } else { "ValidationError" };
                return Err(AwsError::client(code, format!("the tag {key}={value} is not valid")));
            }
            if key.to_lowercase().starts_with("aws:") {
                return Err(AwsError::client(
                    "InvalidParameterValue",
                    "Tag keys starting with 'aws:' are reserved",
                ));
            }
        }
    }
    Ok(())
}
