"""standardwebhooks and cloudevents read real deliveries, given one to a line as JSON with headers and body."""

import json
import os
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    delivery = json.loads(line)
    headers, body = delivery["headers"], delivery["body"].encode()
    verified = Webhook(os.environ["TASKHOOK_SECRET"]).verify(body, headers)
    try:
        Webhook(os.environ["TASKHOOK_SECRET"]).verify(body + b" ", headers)
    except WebhookVerificationError:
        pass
    else:
        raise SystemExit("an altered body was taken")
    if "cloudevents" in headers["content-type"]:
        event = from_http(HTTPMessage(headers=headers, body=body), JSONFormat())
        print(json.dumps({"id": event.get_id(), "type": event.get_type(), "sequence": event.get_extension("sequence")}))
    else:
        print(json.dumps({"id": verified["id"], "type": verified["type"]}))
