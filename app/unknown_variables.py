"""Warns of variables that look like settings and are none: a typo would otherwise go unnoticed.

What can go wrong: nothing. The service starts, with the default of what was meant.
"""

import logging
import os
from difflib import get_close_matches

from dotenv import dotenv_values
from pydantic import AliasChoices

from app.settings import ENV_FILE, Settings

PREFIX = "FOURWAYS_"
COMPOSE = "FOURWAYS_PORTS"
"""What docker-compose.yml reads from the same file `.env`."""

logger = logging.getLogger(__name__)


def warn_of_unknown_variables() -> None:
    """Logs a warning for each variable, of the environment and of the file `.env`, that no setting has."""
    for sentence in unknown_variables():
        logger.warning(sentence)


def unknown_variables() -> list[str]:
    """Returns a sentence for each of them."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    known = [str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices]
    given = sorted({name.upper() for name in (*os.environ, *dotenv_values(ENV_FILE))})
    return [
        f"{name} is not a setting and has no effect: perhaps {get_close_matches(name, known, 1, cutoff=0)[0]} is meant."
        for name in given
        if name.startswith(PREFIX) and name not in (*known, COMPOSE)
    ]
