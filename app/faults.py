"""The errors that keep a command or the application from its work, and that the operator can mend.

The message of each is a sentence that may be shown as it is, without a traceback.
"""

from app.database_url import RefusedUrl
from app.embedded import EmbeddedError
from app.errors import DatabaseUnavailable
from app.schema import MigrationError
from app.settings import SettingsError

FAULTS = (EmbeddedError, SettingsError, RefusedUrl, DatabaseUnavailable, MigrationError)
