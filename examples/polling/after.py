"""With Taskhook: one call that is answered when the picture is there, whatever the provider, through restarts."""

import sys

from taskhook import Taskhook

client = Taskhook()


def generate(prompt: str) -> str:
    task = client.tasks.create_and_wait(model="flux-kontext-pro", prompt=prompt, timeout=900)
    return task.outputs[0].url


print(generate(sys.argv[1]))
