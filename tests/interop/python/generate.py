"""The command of openapi-python-client."""

from openapi_python_client.cli import app

app()
