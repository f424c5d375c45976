"""The product learns of every change: events get their place in the feed, and webhooks are delivered."""
