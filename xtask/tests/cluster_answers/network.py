# Makes networks and a file system in moto, and saves its answers in the folder
# that is named, as the AWS CLI prints them.
import json
import os
import sys

os.environ.update(
    AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-west-2"
)

import boto3
from botocore.stub import Stubber
from moto import mock_aws


def save(name, answer):
    answer.pop("ResponseMetadata", None)
    with open(f"{sys.argv[1]}/{name}.json", "w") as file:
        json.dump(answer, file, default=str)


def quotas(service, values):
    # moto lists no quotas. The stub refuses what has not the service's shape.
    client = boto3.client("service-quotas")
    answer = {
        "Quotas": [
            {"ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Value": value,
             "Unit": "None", "Adjustable": True, "GlobalQuota": False}
            for code, name, value in values
        ]
    }
    with Stubber(client) as stub:
        stub.add_response("list_service_quotas", answer, {"ServiceCode": service})
        return client.list_service_quotas(ServiceCode=service)


with mock_aws():
    ec2, fsx = boto3.client("ec2"), boto3.client("fsx")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]

    def subnet_of(block):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone="us-west-2a")
        return made["Subnet"]["SubnetId"]

    def group_of(name):
        made = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)
        return made["GroupId"]

    def closed(group):
        anywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=anywhere)

    subnet, small = subnet_of("10.1.0.0/24"), subnet_of("10.1.1.0/28")
    group, ssh, new = group_of("efa"), group_of("ssh"), group_of("new")
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=rule)
    closed(group)
    closed(ssh)
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
    ec2.authorize_security_group_ingress(GroupId=ssh, IpPermissions=rule)
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    table = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]
    public = subnet_of("10.1.2.0/28")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=address)["NatGateway"]["NatGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName="com.amazonaws.us-west-2.s3", VpcEndpointType="Gateway",
        RouteTableIds=[table],
    )
    ec2.create_network_interface(SubnetId=subnet, Groups=[group])
    fsx.create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=[subnet], SecurityGroupIds=[group]
    )
    save("describe-subnets", ec2.describe_subnets())
    save("describe-security-groups", ec2.describe_security_groups())
    zones = {"LocationType": "availability-zone"}
    save("describe-instance-type-offerings", ec2.describe_instance_type_offerings(**zones))
    save("describe-route-tables", ec2.describe_route_tables())
    save("describe-vpc-endpoints", ec2.describe_vpc_endpoints())
    save("describe-network-interfaces", ec2.describe_network_interfaces())
    save("describe-file-systems", fsx.describe_file_systems())
    save("list-service-quotas-vpc", quotas("vpc", [
        ("L-DF5E4CA3", "Network interfaces per Region", 5000.0),
    ]))
    save("list-service-quotas-sagemaker", quotas("sagemaker", [
        ("L-1", "ml.p5.48xlarge for cluster usage", 6.0),
        ("L-2", "ml.m5.xlarge for cluster usage", 8.0),
        ("L-3", "Maximum number of instances allowed per SageMaker HyperPod cluster", 20.0),
    ]))
    print(json.dumps({
        "subnet": subnet, "small": small, "group": group, "ssh": ssh, "new": new, "table": table,
    }))
