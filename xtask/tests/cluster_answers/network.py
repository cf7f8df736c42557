# Makes a network and a file system in moto, and saves its answers in the folder
# that is named, as the AWS CLI prints them.
import json
import os
import sys

os.environ.update(
    AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-west-2"
)

import boto3
from moto import mock_aws


def save(name, answer):
    answer.pop("ResponseMetadata", None)
    with open(f"{sys.argv[1]}/{name}.json", "w") as file:
        json.dump(answer, file, default=str)


with mock_aws():
    ec2, fsx = boto3.client("ec2"), boto3.client("fsx")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(
        VpcId=vpc, CidrBlock="10.1.0.0/24", AvailabilityZone="us-west-2a"
    )["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="efa", Description="efa", VpcId=vpc)["GroupId"]
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=rule)
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    table = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]
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
    print(json.dumps({"subnet": subnet, "group": group, "table": table}))
