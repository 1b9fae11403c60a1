"""A client that openapi-python-client generated runs its first task."""

import json
import os
import sys

sys.path.insert(0, os.environ["GENERATED"])
from taskhook_generated import AuthenticatedClient
from taskhook_generated.api.tasks import create_task, get_task
from taskhook_generated.models import CreateTask, ProblemBody, TaskInput, TaskView

client = AuthenticatedClient(base_url=os.environ["TASKHOOK_URL"], token=os.environ["TASKHOOK_API_KEY"], timeout=90.0)
body = CreateTask(model=os.environ["MODEL"], input_=TaskInput(prompt="a lighthouse", aspect_ratio="16:9"))
made = create_task.sync(client=client, body=body)
assert isinstance(made, TaskView), made
task = get_task.sync(made.id, client=client, wait=55)
assert isinstance(task, TaskView), task
refused = create_task.sync(client=client, body=CreateTask(model="nobody/none", input_=TaskInput(prompt="x")))
assert isinstance(refused, ProblemBody), refused
outputs = task.to_dict()["result"]["outputs"]
print(json.dumps({"id": task.id, "status": str(task.status), "url": outputs[0]["url"]}))
