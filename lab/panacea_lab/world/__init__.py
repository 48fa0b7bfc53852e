"""The household world of the demo model: its texts, the answers that can be given in it, and what they are worth."""
