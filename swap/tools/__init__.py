"""Commands for developers and operators: the demo, its webhook receiver, `swap listen`, and `swap orders`."""
