"""What a server says about itself: models, preferences, evaluation, health, tokens, its pages."""
