"""Checks whether the server in this container answers. The exit code is 0, or 1 with the reason."""

import http.client
import os
import sys

PORT = int(os.environ.get("PANACEA_PORT", "8000"))
# The server may be configured to allow only certain host names.
HOST = os.environ.get("PANACEA_ALLOWED_HOST", "localhost").split()[0].replace("*", "localhost")

connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=4)
try:
    connection.request("GET", "/health", headers={"Host": HOST})
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer on port {PORT}: {error}")
sys.exit(None if status == http.client.OK else f"/health answered {status}")
