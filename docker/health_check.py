"""Checks whether the server in this container answers. The exit code is 0, or 1 with the reason."""

import http.client
import os
import ssl
import sys

PROBE_PORT = os.environ.get("PANACEA_PROBE_PORT")
PORT = int(PROBE_PORT or os.environ.get("PANACEA_PORT", "8000"))
# The server may be configured to allow only certain host names.
HOST = os.environ.get("PANACEA_ALLOWED_HOST", "localhost").split()[0].replace("*", "localhost")

if os.environ.get("PANACEA_TLS_CERTIFICATE") and not PROBE_PORT:
    # The certificate is for the server's public name, and this connection does not leave the container.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=4, context=context)
else:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=4)
try:
    connection.request("GET", "/health", headers={"Host": HOST})
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer on port {PORT}: {error}")
sys.exit(None if status == http.client.OK else f"/health answered {status}")
