"""Calls the Lambda handler as API Gateway does (payload 2.0): a line of JSON in, one out, for each request."""

import importlib.util
import json
import sys

spec = importlib.util.spec_from_file_location("example", sys.argv[1])
assert spec and spec.loader
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

for count, line in enumerate(sys.stdin):
    given = json.loads(line)
    event = {"version": "2.0", "headers": given["headers"], "body": given["body"], "isBase64Encoded": True}
    if count % 2:
        event |= {"body": given["text"], "isBase64Encoded": False}
    print(f"={example.handler(event, None)['statusCode']}")
