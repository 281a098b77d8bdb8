"""The fleet `clusters` by boto3, as a careful person writes it: one step after another, a waiter where AWS takes time."""

import boto3

IMAGE = "ami-08c40ec9ead489470"
CLUSTERS = {"cluster1": ("m4.large", 5), "cluster2": ("t2.large", 4)}

ec2 = boto3.client("ec2", region_name="us-east-1")
elb = boto3.client("elbv2", region_name="us-east-1")

vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
subnets = [subnet["SubnetId"] for subnet in subnets if subnet["AvailabilityZone"] in ("us-east-1a", "us-east-1b")]


def security_group(name, ports):
    group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]} for port in ports
    ])
    return group


balancers = security_group("balancer", [80])
machines = security_group("machines", [22, 80, 443])

instances = {}
for name, (kind, count) in CLUSTERS.items():
    run = ec2.run_instances(
        ImageId=IMAGE, InstanceType=kind, MinCount=count, MaxCount=count, SecurityGroupIds=[machines], SubnetId=subnets[0],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "cluster", "Value": name}]}],
    )
    instances[name] = [instance["InstanceId"] for instance in run["Instances"]]

balancer = elb.create_load_balancer(Name="clusters", Subnets=subnets, SecurityGroups=[balancers])
balancer = balancer["LoadBalancers"][0]["LoadBalancerArn"]
groups = {}
for name in CLUSTERS:
    group = elb.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc, HealthCheckPath="/health")
    groups[name] = group["TargetGroups"][0]["TargetGroupArn"]

ec2.get_waiter("instance_running").wait(InstanceIds=sum(instances.values(), []))
for name, group in groups.items():
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance} for instance in instances[name]])

elb.get_waiter("load_balancer_available").wait(LoadBalancerArns=[balancer])
forward = [{"TargetGroupArn": group, "Weight": 1} for group in groups.values()]
listener = elb.create_listener(
    LoadBalancerArn=balancer, Protocol="HTTP", Port=80,
    DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": forward}}],
)["Listeners"][0]["ListenerArn"]
for priority, (name, group) in enumerate(groups.items(), 1):
    paths = {"Field": "path-pattern", "PathPatternConfig": {"Values": [f"/{name}", f"/{name}/*"]}}
    elb.create_rule(
        ListenerArn=listener, Priority=priority, Conditions=[paths],
        Actions=[{"Type": "forward", "TargetGroupArn": group}],
    )
for group in groups.values():
    elb.get_waiter("target_in_service").wait(TargetGroupArn=group)
