"""The rules: states, facts, money, schedules, signatures, times. Pure; nothing here does I/O."""
