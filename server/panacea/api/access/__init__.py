"""Who may ask, how much of the server they may take, and for how long."""
