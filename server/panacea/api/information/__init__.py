"""Routes that describe the server: models, preferences, evaluation, health, tokens, and the pages."""
