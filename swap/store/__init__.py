"""Every query, one file per noun. `store.orders.move` is the one door through which an order changes."""
