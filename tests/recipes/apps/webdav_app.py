"""WsgiDAV over cheroot, with a folder that anybody may write."""

import os
import sys

from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp(
    {
        "provider_mapping": {"/": os.environ["HOME"]},
        "simple_dc": {"user_mapping": {"*": True}},
        "verbose": 1,
    }
)
wsgi.Server(("127.0.0.1", int(sys.argv[1])), app).start()
