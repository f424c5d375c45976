"""The stream: changes of orders, rates and instruments over WebSockets. An asyncio process of its own; any number run."""
