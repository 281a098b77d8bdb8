//! Pages: AWS gives long lists in parts, moto mostly does not.

use super::answer::{Answer, AwsError};
use super::request::Request;
use super::xml::Element;

/// How an action's list is cut.
struct Paged {
    /// Where the list is.
    list: &'static str,
    style: Style,
}

enum Style {
    /// `MaxResults` from this to that, `NextToken`, `nextToken`.
    Ec2(usize, usize),
    /// `PageSize`, `Marker`, `NextMarker`.
    Elbv2,
    /// `MaxItems`, `Marker`, `IsTruncated`.
    Iam,
}

fn paged(request: &Request) -> Option<Paged> {
    let (list, style) = match (request.service.as_str(), request.action.as_str()) {
        ("ec2", "DescribeInstances") => ("reservationSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeSecurityGroups") => ("securityGroupInfo", Style::Ec2(5, 1000)),
        ("ec2", "DescribeSecurityGroupRules") => ("securityGroupRuleSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeSubnets") => ("subnetSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeVpcs") => ("vpcSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeImages") => ("imagesSet", Style::Ec2(1, 1000)),
        ("ec2", "DescribeInstanceTypes") => ("instanceTypeSet", Style::Ec2(5, 100)),
        ("ec2", "DescribeInstanceTypeOfferings") => ("instanceTypeOfferingSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeTags") => ("tagSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeVolumes") => ("volumeSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeNetworkInterfaces") => ("networkInterfaceSet", Style::Ec2(5, 1000)),
        ("ec2", "DescribeInstanceStatus") => ("instanceStatusSet", Style::Ec2(5, 1000)),
        ("elasticloadbalancing", "DescribeLoadBalancers") => {
            ("DescribeLoadBalancersResult/LoadBalancers", Style::Elbv2)
        }
        ("elasticloadbalancing", "DescribeTargetGroups") => {
            ("DescribeTargetGroupsResult/TargetGroups", Style::Elbv2)
        }
        ("elasticloadbalancing", "DescribeListeners") => ("DescribeListenersResult/Listeners", Style::Elbv2),
        ("elasticloadbalancing", "DescribeRules") => ("DescribeRulesResult/Rules", Style::Elbv2),
        ("iam", "ListRoles") => ("ListRolesResult/Roles", Style::Iam),
        ("iam", "ListRolePolicies") => ("ListRolePoliciesResult/PolicyNames", Style::Iam),
        ("iam", "ListAttachedRolePolicies") => {
            ("ListAttachedRolePoliciesResult/AttachedPolicies", Style::Iam)
        }
        ("iam", "ListInstanceProfiles") => ("ListInstanceProfilesResult/InstanceProfiles", Style::Iam),
        ("iam", "ListInstanceProfilesForRole") => {
            ("ListInstanceProfilesForRoleResult/InstanceProfiles", Style::Iam)
        }
        _ => return None,
    };
    Some(Paged { list, style })
}

/// The part of a list that a call asks for.
pub(super) struct Page {
    paged: Paged,
    from: usize,
    size: Option<usize>,
}

impl Page {
    /// Takes the page out of a request, so that moto answers with everything.
    pub(super) fn take(request: &mut Request, forced: Option<usize>) -> Result<Option<Self>, AwsError> {
        let Some(paged) = paged(request) else {
            return Ok(None);
        };
        let (size, token, by_name) = match paged.style {
            Style::Ec2(..) => {
                ("MaxResults", "NextToken", ["InstanceId.1", "GroupId.1", "SubnetId.1", "VpcId.1"])
            }
            Style::Elbv2 => (
                "PageSize",
                "Marker",
                [
                    "Names.member.1",
                    "LoadBalancerArns.member.1",
                    "TargetGroupArns.member.1",
                    "ListenerArns.member.1",
                ],
            ),
            Style::Iam => ("MaxItems", "Marker", [""; 4]),
        };
        let asked = request.parameters.remove(size);
        let token = request.parameters.remove(token);
        let named = by_name.into_iter().any(|name| request.parameters.contains_key(name));
        if let (Style::Ec2(least, most), Some(asked)) = (&paged.style, &asked) {
            if request.action == "DescribeInstances" && named {
                let text = "The parameter instancesSet cannot be used with the parameter maxResults";
                return Err(AwsError::client("InvalidParameterCombination", text));
            }
            if !asked.parse().is_ok_and(|asked: usize| (*least..=*most).contains(&asked)) {
                let text = format!(
                    "Value ( {asked} ) for parameter maxResults is invalid. Expecting a value from {least} to {most}."
                );
                return Err(AwsError::client("InvalidParameterValue", text));
            }
        }
        let from = match token.as_deref().filter(|token| !token.is_empty()) {
            None => 0,
            // A page can only follow one of the same list.
            Some(token) => {
                match token.strip_prefix(&format!("{}:", request.action)).and_then(|at| at.parse().ok()) {
                    Some(from) => from,
                    None => return Err(AwsError::client("InvalidParameterValue", "the token is not valid")),
                }
            }
        };
        if asked.is_some() || token.is_some() {
            request.rewritten();
        }
        let asked = asked.and_then(|asked| asked.parse().ok());
        let forced = forced.filter(|_| !named);
        let size = asked.into_iter().chain(forced).min();
        Ok(Some(Self { paged, from, size }))
    }

    /// Leaves only the page of the list.
    pub(super) fn cut(&self, request: &Request, answer: Answer) -> Answer {
        let Some(size) = self.size.filter(|_| answer.ok()) else {
            return answer;
        };
        let mut document = answer.xml();
        let Some(list) = document.at_mut(self.paged.list) else {
            return answer;
        };
        let length = list.children.len();
        let end = length.min(self.from + size);
        list.children = list.children.get(self.from..end).unwrap_or_default().to_vec();
        let token = format!("{}:{end}", request.action);
        let more = end < length;
        let holder = match self.paged.list.split_once('/') {
            Some((holder, _)) => document.at_mut(holder).expect("the list is in it"),
            None => &mut document,
        };
        let name = match self.paged.style {
            Style::Ec2(..) => "nextToken",
            Style::Elbv2 => "NextMarker",
            Style::Iam => {
                holder.set(Element::text("IsTruncated", more.to_string()));
                "Marker"
            }
        };
        holder.children.retain(|child| child.name != name);
        if more {
            holder.children.push(Element::text(name, token));
        }
        answer.with(&document)
    }
}
