"""Orders are followed until their money has arrived: polls, the list signal, unowned orders, reconciliation."""
