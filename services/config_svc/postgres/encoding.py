"""The encoding of the database, without which texts are neither kept nor compared as they were written."""

from sqlalchemy import Connection

from servicekit.errors import StartupError

ENCODING = "UTF8"


def require_encoding(connection: Connection) -> None:
    """Raises StartupError for a database whose encoding is not UTF8, which only a new database changes."""
    encoding: str = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar_one()
    if encoding != ENCODING:
        raise StartupError(
            f"the database's encoding is {encoding}, it must be {ENCODING}: "
            f"move it to one made with CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0"
        )
