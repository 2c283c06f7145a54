"""Use a bucket through the gateway, with requests that moto checks the signatures of.

Arguments: moto's own URL, at which the key is made, the one behind the gateway, and how a bucket is named there.
"""

import json
import sys

import boto3
import localhost_names  # noqa: F401
from botocore.client import Config
from botocore.exceptions import ClientError

direct, endpoint, style = sys.argv[1:]
options = {"region_name": "us-east-1", "aws_access_key_id": "none", "aws_secret_access_key": "none"}
iam = boto3.client("iam", endpoint_url=direct, **options)
iam.create_user(UserName="ann")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
iam.put_user_policy(UserName="ann", PolicyName="all", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="ann")["AccessKey"]
options |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def s3(**changes):
    config = Config(s3={"addressing_style": style}, retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=endpoint, config=config, **{**options, **changes})


bucket, name, body = "bucket", "a b/ü+%2F", bytes(range(256)) * 4096
client = s3()
client.create_bucket(Bucket=bucket)
client.put_object(Bucket=bucket, Key=name, Body=body)
assert client.get_object(Bucket=bucket, Key=name)["Body"].read() == body
place = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": name})
try:
    s3(aws_secret_access_key="wrong").list_objects_v2(Bucket=bucket)
except ClientError as error:
    print(place.partition("?")[0], error.response["Error"]["Code"])
