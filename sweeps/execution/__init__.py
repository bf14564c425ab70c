"""Running trials with Ray: the only room that knows Ray."""
