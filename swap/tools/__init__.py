"""Commands for developers: the demo, its webhook receiver, and `swap listen`."""
