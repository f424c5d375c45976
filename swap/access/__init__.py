"""Who may call: API keys with their request signatures, and the tracking tokens of customers' browsers."""
