"""The yardstick: a bare Starlette route that reads the body and answers 200, with the service's uvicorn settings.

python -m bench.bare PORT
"""

import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ANSWER = os.environ.get("BARE_ANSWER", '{"status":"received"}').encode()


async def receive(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json")


app = Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", access_log=False, log_level="warning")
