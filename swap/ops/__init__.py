"""For support and operators: the full record of an order, and a check of every part."""
