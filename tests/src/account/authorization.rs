//! Whether AWS would let the caller do this: for each call the permissions it needs, on every
//! resource that AWS asks about, with the tags they have or are to have. After AWS's service
//! authorization reference.

use super::ACCOUNT;
use super::answer::AwsError;
use super::policy::{Context, Document};
use super::request::Request;
use super::state::State;
use super::xml::Element;

/// Something that has to be allowed for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// `ec2:RunInstances`, `iam:PassRole`, ...
    pub permission: String,
    /// The ARN of what it is about, or `*`.
    pub resource: String,
    /// Tags that are asked for or that are there, and more of that kind.
    pub context: Context,
}

type Tags = Vec<(String, String)>;

const ELB: &str = "elasticloadbalancing";

impl State {
    /// Refuses what the caller's policy does not allow.
    pub(super) async fn authorize(&mut self, request: &Request) -> Result<(), AwsError> {
        let Some(policy) = self.options.policy.clone().filter(|_| request.service != "sts") else {
            return Ok(());
        };
        let needs = match request.service.as_str() {
            "ec2" => self.ec2_needs(request).await,
            ELB => self.elb_needs(request).await,
            "iam" => self.iam_needs(request).await,
            "s3" => s3_needs(request),
            "ssm" => vec![Need::new(
                "ssm:GetParameter",
                &format!("arn:aws:ssm:{}::parameter{}", request.region, request.get("Name")),
            )],
            _ => {
                let quota = format!("{}/{}", request.get("ServiceCode"), request.get("QuotaCode"));
                let arn = format!("arn:aws:servicequotas:{}:{ACCOUNT}:{quota}", request.region);
                vec![Need::new(&format!("servicequotas:{}", request.action), &arn)]
            }
        };
        for mut need in needs {
            need.context.insert("aws:RequestedRegion".to_owned(), vec![request.region.clone()]);
            if request.service == "ec2" {
                need.context.insert("ec2:Region".to_owned(), vec![request.region.clone()]);
            }
            let allowed = need.is_met_by(&policy);
            let denied = AwsError::denied(&request.service, &need.permission, &need.resource);
            if !self.needs.contains(&need) {
                self.needs.push(need);
            }
            if !allowed {
                return Err(denied);
            }
        }
        Ok(())
    }

    async fn ec2_needs(&self, request: &Request) -> Vec<Need> {
        let action = request.action.as_str();
        let permission = format!("ec2:{action}");
        let arn = |path: &str| format!("arn:aws:ec2:{}:{ACCOUNT}:{path}", request.region);
        let created = |resource: &str, tags: &Tags| {
            let mut needs = vec![Need::new(&permission, &arn(&format!("{resource}/*"))).asks(tags)];
            if !tags.is_empty() {
                let tag = Need::new("ec2:CreateTags", &arn(&format!("{resource}/*"))).asks(tags);
                needs.push(tag.with("ec2:CreateAction", action));
            }
            needs
        };
        let mut needs = Vec::new();
        match action {
            "RunInstances" => {
                for resource in ["instance", "volume", "network-interface"] {
                    needs.extend(created(resource, &request.tag_specification(resource)));
                }
                let image = format!("arn:aws:ec2:{}::image/{}", request.region, request.get("ImageId"));
                needs.push(Need::new(&permission, &image));
                needs.push(self.existing(&permission, request, request.get("SubnetId")).await);
                for group in request.list("SecurityGroupId") {
                    needs.push(self.existing(&permission, request, group).await);
                }
                if !request.get("KeyName").is_empty() {
                    needs.push(Need::new(&permission, &arn(&format!("key-pair/{}", request.get("KeyName")))));
                }
                let profile = request.get("IamInstanceProfile.Name");
                let profile =
                    request.get("IamInstanceProfile.Arn").rsplit_once('/').map_or(profile, |(_, name)| name);
                if !profile.is_empty() {
                    needs.extend(self.passed_role(profile).await.map(|role| pass_role(&role)));
                }
            }
            "CreateSecurityGroup" => {
                needs.extend(created("security-group", &request.tag_specification("security-group")));
                needs.push(self.existing(&permission, request, request.get("VpcId")).await);
            }
            "AuthorizeSecurityGroupIngress" | "AuthorizeSecurityGroupEgress" => {
                needs.push(self.existing(&permission, request, request.get("GroupId")).await);
                let tags = request.tag_specification("security-group-rule");
                if !tags.is_empty() {
                    needs.extend(created("security-group-rule", &tags));
                }
            }
            "RevokeSecurityGroupIngress" | "RevokeSecurityGroupEgress" | "DeleteSecurityGroup" => {
                needs.push(self.existing(&permission, request, request.get("GroupId")).await);
            }
            "TerminateInstances" => {
                for id in request.list("InstanceId") {
                    needs.push(self.existing(&permission, request, id).await);
                }
            }
            "GetConsoleOutput" | "ModifyInstanceAttribute" | "ModifyInstanceMetadataOptions" => {
                needs.push(self.existing(&permission, request, request.get("InstanceId")).await);
            }
            "CreateTags" | "DeleteTags" => {
                for id in request.list("ResourceId") {
                    needs.push(self.existing(&permission, request, id).await.asks(&request.pairs("Tag")));
                }
            }
            _ if request.is_read() => needs.push(Need::new(&permission, "*")),
            other => panic!("the tests do not know what ec2:{other} needs"),
        }
        needs
    }

    /// A permission on something of EC2's that exists, with its tags.
    async fn existing(&self, permission: &str, request: &Request, id: &str) -> Need {
        let kind = match id.split_once('-').map_or(id, |(kind, _)| kind) {
            "i" => "instance",
            "sg" => "security-group",
            "sgr" => "security-group-rule",
            "subnet" => "subnet",
            "vol" => "volume",
            "vpc" => "vpc",
            "eni" => "network-interface",
            other => panic!("the tests do not know what a {other} is"),
        };
        let asked = [("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", id)];
        let found = self.moto.look("ec2", "DescribeTags", &asked).await;
        let tags = found.map(|found| found.tags("tagSet")).unwrap_or_default();
        let arn = format!("arn:aws:ec2:{}:{ACCOUNT}:{kind}/{id}", request.region);
        Need::new(permission, &arn).has("ec2", &tags)
    }

    /// The ARN of the role in a profile.
    async fn passed_role(&self, profile: &str) -> Option<String> {
        let asked = [("InstanceProfileName", profile)];
        let found = self.moto.look("iam", "GetInstanceProfile", &asked).await.ok()?;
        let roles = found.list("GetInstanceProfileResult/InstanceProfile/Roles");
        roles.first().map(|role| role.say("Arn").to_owned())
    }

    async fn elb_needs(&self, request: &Request) -> Vec<Need> {
        let action = request.action.as_str();
        let permission = format!("{ELB}:{action}");
        let arn = |path: &str| format!("arn:aws:{ELB}:{}:{ACCOUNT}:{path}", request.region);
        let tags = request.pairs("Tags.member");
        let tagging = |resource: &str| {
            let need = Need::new(&format!("{ELB}:AddTags"), resource).asks(&tags);
            (!tags.is_empty()).then(|| need.with(&format!("{ELB}:CreateAction"), action))
        };
        // The account's first balancer or target group brings the service's own role, and makes the
        // service look around with the caller's permissions.
        let first = |looks: &[&str]| {
            let role = format!(
                "arn:aws:iam::{ACCOUNT}:role/aws-service-role/{ELB}.amazonaws.com/AWSServiceRoleForElasticLoadBalancing"
            );
            let mut needs = vec![
                Need::new("iam:CreateServiceLinkedRole", &role)
                    .with("iam:AWSServiceName", &format!("{ELB}.amazonaws.com")),
            ];
            needs.extend(looks.iter().map(|look| Need::new(&format!("ec2:Describe{look}"), "*")));
            if self.options.had_balancers { Vec::new() } else { needs }
        };
        let mut needs = Vec::new();
        match action {
            "CreateLoadBalancer" | "CreateTargetGroup" => {
                let name = request.get("Name");
                let path = match action {
                    "CreateLoadBalancer" => format!("loadbalancer/app/{name}/*"),
                    _ => format!("targetgroup/{name}/*"),
                };
                needs.push(Need::new(&permission, &arn(&path)).asks(&tags));
                needs.extend(tagging(&arn(&path)));
                needs.extend(first(match action {
                    "CreateLoadBalancer" => &[
                        "AccountAttributes",
                        "Addresses",
                        "InternetGateways",
                        "SecurityGroups",
                        "Subnets",
                        "Vpcs",
                    ],
                    _ => &["InternetGateways", "Vpcs"],
                }));
            }
            "CreateListener" => {
                let balancer = request.get("LoadBalancerArn");
                needs.push(self.balanced(&permission, balancer).await.asks(&tags));
                needs.extend(tagging(&format!("{}/*", balancer.replace(":loadbalancer/", ":listener/"))));
            }
            "CreateRule" => {
                let listener = request.get("ListenerArn");
                needs.push(self.balanced(&permission, listener).await.asks(&tags));
                needs.extend(tagging(&format!("{}/*", listener.replace(":listener/", ":listener-rule/"))));
            }
            "AddTags" | "RemoveTags" => {
                for arn in request.list("ResourceArns.member") {
                    needs.push(self.balanced(&permission, arn).await.asks(&tags));
                }
            }
            _ if request.is_read() => needs.push(Need::new(&permission, "*")),
            _ => {
                let names = ["RuleArn", "ListenerArn", "TargetGroupArn", "LoadBalancerArn"];
                let arn = names.into_iter().find_map(|name| request.parameters.get(name));
                let arn = arn.unwrap_or_else(|| panic!("the tests do not know what {ELB}:{action} needs"));
                needs.push(self.balanced(&permission, arn).await);
            }
        }
        needs
    }

    /// A permission on something of ELB's that exists, with its tags.
    async fn balanced(&self, permission: &str, arn: &str) -> Need {
        let found = self.moto.look(ELB, "DescribeTags", &[("ResourceArns.member.1", arn)]).await;
        let tags = found.ok().and_then(|found| {
            found.find("Tags").map(|tags| Element::of("x", vec![tags.clone()]).tags("Tags"))
        });
        Need::new(permission, arn).has(ELB, &tags.unwrap_or_default())
    }

    async fn iam_needs(&self, request: &Request) -> Vec<Need> {
        let action = request.action.as_str();
        let permission = format!("iam:{action}");
        let role = format!("arn:aws:iam::{ACCOUNT}:role/{}", request.get("RoleName"));
        let profile =
            format!("arn:aws:iam::{ACCOUNT}:instance-profile/{}", request.get("InstanceProfileName"));
        let tags = request.pairs("Tags.member");
        let mut needs = Vec::new();
        match action {
            "CreateRole" | "CreateInstanceProfile" => {
                let (arn, tag) = match action {
                    "CreateRole" => (&role, "iam:TagRole"),
                    _ => (&profile, "iam:TagInstanceProfile"),
                };
                needs.push(Need::new(&permission, arn).asks(&tags));
                if !tags.is_empty() {
                    needs.push(Need::new(tag, arn).asks(&tags));
                }
            }
            "AddRoleToInstanceProfile" => {
                needs.push(self.owned(&permission, request, &profile).await);
                needs.push(pass_role(&role));
            }
            "ListRoles" | "ListInstanceProfiles" => needs.push(Need::new(&permission, "*")),
            _ if request.parameters.contains_key("InstanceProfileName") => {
                needs.push(self.owned(&permission, request, &profile).await.asks(&tags));
            }
            _ => needs.push(self.owned(&permission, request, &role).await.asks(&tags)),
        }
        needs
    }

    /// A permission on a role or profile that may exist, with its tags.
    async fn owned(&self, permission: &str, request: &Request, arn: &str) -> Need {
        let (action, name) = match request.get("InstanceProfileName") {
            "" => ("ListRoleTags", ("RoleName", request.get("RoleName"))),
            profile => ("ListInstanceProfileTags", ("InstanceProfileName", profile)),
        };
        let found = self.moto.look("iam", action, &[name]).await;
        let tags = found.map(|found| found.tags(&format!("{action}Result/Tags"))).unwrap_or_default();
        Need::new(permission, arn).has("iam", &tags)
    }
}

fn s3_needs(request: &Request) -> Vec<Need> {
    let bucket = format!("arn:aws:s3:::{}", request.get("Bucket"));
    let object = format!("{bucket}/{}", request.get("Key"));
    let of_bucket = |permission: &str| vec![Need::new(permission, &bucket)];
    let of_object = |permission: &str| vec![Need::new(permission, &object)];
    match request.action.as_str() {
        "HeadBucket" | "ListObjectsV2" => of_bucket("s3:ListBucket"),
        "ListObjectVersions" => of_bucket("s3:ListBucketVersions"),
        "ListMultipartUploads" => of_bucket("s3:ListBucketMultipartUploads"),
        "ListBuckets" => vec![Need::new("s3:ListAllMyBuckets", "*")],
        "GetPublicAccessBlock" => of_bucket("s3:GetBucketPublicAccessBlock"),
        "PutPublicAccessBlock" | "DeletePublicAccessBlock" => of_bucket("s3:PutBucketPublicAccessBlock"),
        "PutBucketEncryption" => of_bucket("s3:PutEncryptionConfiguration"),
        "GetBucketEncryption" => of_bucket("s3:GetEncryptionConfiguration"),
        "PutBucketLifecycle" => of_bucket("s3:PutLifecycleConfiguration"),
        "DeleteBucketTagging" => of_bucket("s3:PutBucketTagging"),
        // Without the second an object that is not there is answered with 403.
        "HeadObject" => [of_object("s3:GetObject"), of_bucket("s3:ListBucket")].concat(),
        "GetObject" => of_object("s3:GetObject"),
        "PutObject" => {
            let mut needs = of_object("s3:PutObject");
            if request.headers.contains_key("x-amz-tagging") {
                needs.extend(of_object("s3:PutObjectTagging"));
            }
            needs
        }
        "DeleteObject" if request.parameters.contains_key("versionId") => of_object("s3:DeleteObjectVersion"),
        // Deleting many asks for each; where a version is given, for its permission too.
        "DeleteObjects" => {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let listed = Element::parse(&body).unwrap_or_default();
            let objects = listed.children.iter().filter(|child| child.name == "Object");
            let needs = |item: &Element| {
                let object = format!("{bucket}/{}", item.say("Key"));
                let version = !item.say("VersionId").is_empty();
                let version = version.then(|| Need::new("s3:DeleteObjectVersion", &object));
                version.into_iter().chain([Need::new("s3:DeleteObject", &object)]).collect::<Vec<_>>()
            };
            objects.flat_map(needs).collect()
        }
        other if request.get("Key").is_empty() => of_bucket(&format!("s3:{other}")),
        other => of_object(&format!("s3:{other}")),
    }
}

fn pass_role(role: &str) -> Need {
    Need::new("iam:PassRole", role).with("iam:PassedToService", "ec2.amazonaws.com")
}

impl Need {
    /// Whether a policy allows it.
    pub fn is_met_by(&self, policy: &Document) -> bool {
        policy.allows(&self.permission, &self.resource, &self.context)
    }

    fn new(permission: &str, resource: &str) -> Self {
        Self { permission: permission.to_owned(), resource: resource.to_owned(), context: Context::new() }
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.context.insert(key.to_owned(), vec![value.to_owned()]);
        self
    }

    /// The tags that the call asks for.
    fn asks(mut self, tags: &Tags) -> Self {
        for (key, value) in tags {
            self.context.insert(format!("aws:RequestTag/{key}"), vec![value.clone()]);
        }
        if !tags.is_empty() {
            self.context.insert("aws:TagKeys".to_owned(), tags.iter().map(|(key, _)| key.clone()).collect());
        }
        self
    }

    /// The tags that the resource has.
    fn has(mut self, service: &str, tags: &Tags) -> Self {
        for (key, value) in tags {
            for prefix in ["aws", service] {
                self.context.insert(format!("{prefix}:ResourceTag/{key}"), vec![value.clone()]);
            }
        }
        self
    }
}
