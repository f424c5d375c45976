"""The WSGI door: settings, parts, app. `swap api` serves it; any WSGI server can."""

from swap.web import create_app
from swap.wiring import start

app = create_app(start("api"))
